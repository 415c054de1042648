"""DeepSeek V3 and R1 (`function`, the name, fenced JSON) and V3.1 (the name, JSON), between the same markers."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, block_of
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import FENCE, read_arguments, read_end, read_fence, read_fence_end
from service.tool_calling.source import SPACE, Reading, Source


def _marker(words: str) -> str:
    """The bars are full width (U+FF5C), the spaces U+2581."""
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


BLOCK, BLOCK_END = _marker("tool calls begin"), _marker("tool calls end")
CALL, SEPARATOR, CALL_END = _marker("tool call begin"), _marker("tool sep"), _marker("tool call end")
_NAME = re.compile(r"[^<\n]*")


def _read_call(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = (yield from source.run(_NAME)).strip()
    yield from source.expect(SEPARATOR)
    yield from source.run(SPACE)
    if (yield from source.peek()) not in ("{", "`"):  # V3 writes the kind of call first
        name = (yield from source.run(_NAME)).strip()
        yield from source.run(SPACE)
    fenced = yield from read_fence(source)
    yield from read_arguments(source, attempt, name, CALL_END, FENCE)
    yield from read_fence_end(source, fenced=fenced)
    yield from read_end(source, attempt, CALL_END)


def knows(template: str) -> bool:
    return BLOCK in template or CALL in template


FORMS = (
    CallForm(
        begin=BLOCK,
        before=f"{CALL}{{name}}{SEPARATOR}",
        after=CALL_END,
        separator="",
        end=BLOCK_END,
        trigger=BLOCK,
    ),
    CallForm(  # V3 and R1
        begin=BLOCK,
        before=f"{CALL}function{SEPARATOR}{{name}}\n{FENCE}json\n",
        after=f"\n{FENCE}{CALL_END}",
        end=BLOCK_END,
        trigger=BLOCK,
    ),
)
read = block_of(_read_call, call=CALL, end=BLOCK_END)
FAMILY = Family(
    name="deepseek",
    openings=(Opening((BLOCK,), read), Opening((CALL,), read, consumed=False)),
    knows=knows,
    forms=FORMS,
)
