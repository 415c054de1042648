"""Solar Open: calls with an id, a name and JSON arguments behind markers. Reasoning and text have markers too."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, block_of, pass_thought, skip_marker, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments, read_end
from service.tool_calling.source import SPACE, Reading, Source

BLOCK, BLOCK_END = "<|tool_calls|>", "<|calls|>"
CALL, NAME, ARGUMENTS, CALL_END = "<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"
TURN, CONTENT, THOUGHT, END = "<|begin|>assistant", "<|content|>", "<|think|>", "<|end|>"
_WORD = re.compile(r"[^<\n]*")


def _read_call(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.run(_WORD)  # the call's id
    yield from source.expect(NAME)
    name = (yield from source.run(_WORD)).strip()
    yield from source.expect(ARGUMENTS)
    yield from source.run(SPACE)
    yield from read_arguments(source, attempt, name, CALL_END)
    yield from read_end(source, attempt, CALL_END)


FORM = CallForm(
    begin=BLOCK,
    before=f"{CALL}{{index}}{NAME}{{name}}{ARGUMENTS}",
    after=CALL_END,
    separator="",
    end=BLOCK_END,
    trigger=BLOCK,
)
read = block_of(_read_call, call=CALL, end=BLOCK_END)
FAMILY = Family(
    name="solar",
    openings=(
        Opening((BLOCK,), read),
        Opening((CALL,), read, consumed=False),
        Opening((THOUGHT,), pass_thought(END, before=(TURN, CONTENT, BLOCK))),
        Opening((TURN, CONTENT, END), skip_marker),
    ),
    knows=template_has(CALL),
    forms=(FORM,),
    frames=True,
    answer=CONTENT,
    thought=(THOUGHT, f"{END}{TURN}"),
)
