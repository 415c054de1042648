"""Kimi K2: a section of calls, each with the id `functions.NAME:INDEX` and JSON arguments."""

import re
from collections.abc import Sequence

from service.generation import ToolCall
from service.tool_calling.calls import Calls
from service.tool_calling.family import Family, Opening
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments, read_end
from service.tool_calling.source import SPACE, Reading, Source

SECTION, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"[^<\n]*")


def read(source: Source, calls: Calls) -> Reading[None]:
    """A section; some answers leave out its beginning."""
    yield from source.run(SPACE)
    while True:
        yield from _read_call(source, calls)
        yield from source.run(SPACE)
        if not (yield from source.which((CALL,))):
            break
    if (yield from source.skip(SECTION_END)):
        calls.absorb()


def _read_call(source: Source, calls: Calls) -> Reading[None]:
    calls.begin()
    yield from source.expect(CALL)
    call_id = (yield from source.run(_ID)).strip()
    name, colon, index = call_id.removeprefix("functions.").rpartition(":")
    yield from source.expect(ARGUMENTS)
    yield from source.run(SPACE)
    yield from read_arguments(source, calls, name if colon and index.isdigit() else call_id, CALL_END)
    yield from read_end(source, calls, CALL_END)


def knows(template: str) -> bool:
    return SECTION in template


def render(calls: Sequence[ToolCall]) -> str:
    rendered = (
        f"{CALL}functions.{call.name}:{index}{ARGUMENTS}{call.arguments}{CALL_END}" for index, call in enumerate(calls)
    )
    return f"{SECTION}{''.join(rendered)}{SECTION_END}"


FORM = CallForm(
    begin=SECTION,
    before=f"{CALL}functions.{{name}}:{{index}}{ARGUMENTS}",
    after=CALL_END,
    separator="",
    end=SECTION_END,
    trigger=SECTION,
)
FAMILY = Family(
    name="kimi_k2",
    openings=(Opening((SECTION,), read), Opening((CALL,), read, consumed=False)),
    knows=knows,
    render=render,
    forms=(FORM,),
)
