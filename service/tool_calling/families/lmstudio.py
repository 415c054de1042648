"""LM Studio's convention for models not trained on tools: a JSON object in `[TOOL_REQUEST]`."""

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_calls, read_end
from service.tool_calling.source import Reading, Source

OPEN, CLOSE = "[TOOL_REQUEST]", "[END_TOOL_REQUEST]"


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from read_calls(source, attempt, CLOSE)
    yield from read_end(source, attempt, CLOSE)


FORM = CallForm(before=f'{OPEN}{{"name": "{{name}}", "arguments": ', after=f"}}{CLOSE}", trigger=OPEN)
FAMILY = Family(name="lmstudio", openings=(Opening((OPEN,), read),), knows=template_has(OPEN), forms=(FORM,))
