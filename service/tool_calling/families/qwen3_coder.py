"""Qwen3-Coder and Nemotron: functions and parameters as tags, usually in `<tool_call>`."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, read_block
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.source import SPACE, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

OPEN, CLOSE = "<tool_call>", "</tool_call>"
TAGS = Tags(
    call="<function=",
    call_end="</function>",
    argument="<parameter=",
    argument_end="</parameter>",
    own_line=True,
    block_end=CLOSE,
)
_NAME = re.compile(r"[^<>\n]*")


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from read_block(source, attempt, _read_function, call=TAGS.call, end=CLOSE)


def _read_function(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = (yield from source.run(_NAME)).strip()
    yield from source.expect(">")
    yield from source.run(SPACE)
    if not (yield from source.which(TAGS.after_argument)):
        yield from source.refuse()
    call = TaggedCall(source, attempt, TAGS, name)
    while (yield from source.skip(TAGS.argument)):
        parameter = (yield from source.run(_NAME)).strip()
        yield from source.expect(">")
        yield from call.argument(parameter)
    yield from call.end()


def knows(template: str) -> bool:
    return TAGS.call in template and TAGS.argument in template


FORM = CallForm(
    before=f"{OPEN}\n{TAGS.call}{{name}}>\n",
    argument=ArgumentForm(before=f"{TAGS.argument}{{name}}>\n", after=f"\n{TAGS.argument_end}\n"),
    after=f"{TAGS.call_end}\n{CLOSE}",
    trigger=OPEN,
)
FAMILY = Family(
    name="qwen3_coder",
    openings=(Opening((OPEN,), read), Opening((TAGS.call,), read, consumed=False)),
    knows=knows,
    forms=(FORM,),
)
