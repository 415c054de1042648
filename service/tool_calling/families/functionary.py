"""Functionary 3.2: `>>>` and a recipient, on a line, before each message; `all` is the user. The prompt ends with the
first `>>>`, so an answer begins with a recipient."""

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments
from service.tool_calling.source import SPACE, Malformed, Reading, Source

MARK, USER = ">>>", "all\n"


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    if (yield from source.skip(USER)):
        attempt.absorb()
        return
    found = yield from source.which(tuple(f"{name}\n" for name in attempt.tools))
    if not found:
        raise Malformed
    source.take(len(found))
    yield from source.run(SPACE)
    yield from read_arguments(source, attempt, found.strip(), MARK)


FORM = CallForm(before="{name}\n", separator=MARK)
FAMILY = Family(
    name="functionary",
    openings=(Opening((MARK,), read), Opening((), read, "start", consumed=False)),
    knows=template_has(">>>${recipient}"),
    forms=(FORM,),
    frames=True,
    answer=USER,
)
