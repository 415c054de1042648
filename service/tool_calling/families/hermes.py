"""Hermes 2 Pro, Qwen 2.5 and 3, and many more: a JSON object in `<tool_call>`."""

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import FENCE, read_calls, read_end, read_fence, read_fence_end
from service.tool_calling.source import SPACE, Reading, Source

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    """Models sometimes double the opening tag, or fence the object."""
    yield from source.run(SPACE)
    while (yield from source.skip(OPEN)):
        attempt.repaired()
        yield from source.run(SPACE)
    fenced = yield from read_fence(source)
    yield from read_calls(source, attempt, *((FENCE, CLOSE) if fenced else (CLOSE,)))
    yield from read_fence_end(source, fenced=fenced)
    yield from read_end(source, attempt, CLOSE)


FORM = CallForm(before=f'{OPEN}\n{{"name": "{{name}}", "arguments": ', after=f"}}\n{CLOSE}", trigger=OPEN)
FAMILY = Family(
    name="hermes",
    openings=(Opening((OPEN,), read),),
    knows=template_has(OPEN, but=("<function=", "<arg_key>", "<tool_calls>", "]<]minimax[>[")),
    forms=(FORM,),
)
