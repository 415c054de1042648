"""Kimi K2: a section of calls, each with the id `functions.NAME:INDEX` and JSON arguments."""

import re

from service.tool_calling.calls import NAMESPACE, CallAttempt
from service.tool_calling.family import Family, Opening, block_of, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments, read_end
from service.tool_calling.source import SPACE, Reading, Source

SECTION, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"[^<\n]*")


def _read_call(source: Source, attempt: CallAttempt) -> Reading[None]:
    call_id = (yield from source.run(_ID)).strip()
    name, colon, index = call_id.removeprefix(NAMESPACE).rpartition(":")
    yield from source.expect(ARGUMENTS)
    yield from source.run(SPACE)
    yield from read_arguments(source, attempt, name if colon and index.isdigit() else call_id, CALL_END)
    yield from read_end(source, attempt, CALL_END)


FORM = CallForm(
    begin=SECTION,
    before=f"{CALL}functions.{{name}}:{{index}}{ARGUMENTS}",
    after=CALL_END,
    separator="",
    end=SECTION_END,
    trigger=SECTION,
)
read = block_of(_read_call, call=CALL, end=SECTION_END)
FAMILY = Family(
    name="kimi_k2",
    openings=(Opening((SECTION,), read), Opening((CALL,), read, consumed=False)),
    knows=template_has(SECTION),
    forms=(FORM,),
)
