"""MiniMax M2: `<invoke>` with parameters as tags, in `<minimax:tool_call>`."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, read_block
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.source import SPACE, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

OPEN, CLOSE = "<minimax:tool_call>", "</minimax:tool_call>"
TAGS = Tags(
    call="<invoke name=",
    call_end="</invoke>",
    argument="<parameter name=",
    argument_end="</parameter>",
    block_end=CLOSE,
)
_NAME = re.compile(r"[^<>\n]*")


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from read_block(source, attempt, _read_invoke, call=TAGS.call, end=CLOSE)


def _read_invoke(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = yield from _quoted(source)
    yield from source.run(SPACE)
    call = TaggedCall(source, attempt, TAGS, name)
    while (yield from source.skip(TAGS.argument)):
        yield from call.argument((yield from _quoted(source)))
    yield from call.end()


def _quoted(source: Source) -> Reading[str]:
    name = yield from source.run(_NAME)
    yield from source.expect(">")
    return name.strip().strip("\"'")


def knows(template: str) -> bool:
    return OPEN in template


FORM = CallForm(
    begin=f"{OPEN}\n",
    before=f'{TAGS.call}"{{name}}">\n',
    argument=ArgumentForm(before=f'{TAGS.argument}"{{name}}">', after=f"{TAGS.argument_end}\n"),
    after=f"{TAGS.call_end}\n",
    separator="",
    end=CLOSE,
    trigger=OPEN,
)
FAMILY = Family(
    name="minimax",
    openings=(Opening((OPEN,), read), Opening((TAGS.call,), read, consumed=False)),
    knows=knows,
    forms=(FORM,),
)
