"""MiniCPM5: `<function name="f">` with `<param name="k">` tags and no wrapper; values may be CDATA sections."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, block_of, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.source import SPACE, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

TAGS = Tags(
    call="<function name=", call_end="</function>", argument="<param name=", argument_end="</param>", cdata=True
)
_NAME = re.compile(r"[^<>\n]*")


def _read_function(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = yield from _quoted(source)
    yield from source.run(SPACE)
    if not (yield from source.which(TAGS.after_argument)):
        yield from source.refuse()
    call = TaggedCall(source, attempt, TAGS, name)
    while (yield from source.skip(TAGS.argument)):
        parameter = yield from _quoted(source)
        yield from call.argument(parameter)
    yield from call.end()


def _quoted(source: Source) -> Reading[str]:
    name = yield from source.run(_NAME)
    yield from source.expect(">")
    return name.strip().strip("\"'")


FORM = CallForm(
    before=f'{TAGS.call}"{{name}}">',
    argument=ArgumentForm(before=f'{TAGS.argument}"{{name}}">', after=TAGS.argument_end),
    after=TAGS.call_end,
    trigger=TAGS.call,
)
FAMILY = Family(
    name="minicpm5",
    openings=(Opening((TAGS.call,), block_of(_read_function, call=TAGS.call, end=""), consumed=False),),
    knows=template_has(TAGS.call, TAGS.argument),
    forms=(FORM,),
)
