"""Llama 3.1 to 3.3: bare JSON with name and parameters, with or without `<|python_tag|>`, or in `<function=NAME>`."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments, read_calls, read_end
from service.tool_calling.python_calls import read_keywords
from service.tool_calling.source import SPACE, Reading, Source

TAG = "<|python_tag|>"
TURN_ENDS = ("<|eom_id|>", "<|eot_id|>")
FUNCTION, FUNCTION_END = "<function=", "</function>"
CALL_METHOD = ".call"
_PYTHON_NAME = re.compile(r"[\w.-]*")
_NAME = re.compile(r"[^<>\n]*")


def read_tagged(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from read_calls(source, attempt, *TURN_ENDS, TAG)
    yield from read_end(source, attempt, *TURN_ENDS)


def read_builtin(source: Source, attempt: CallAttempt) -> Reading[None]:
    """Reads a call of a built-in tool: `brave_search.call(query="...")`."""
    yield from source.run(SPACE)
    name = yield from source.run(_PYTHON_NAME)
    if not name.endswith(CALL_METHOD):
        yield from source.refuse()
    yield from read_keywords(source, attempt, name.removesuffix(CALL_METHOD))
    yield from read_end(source, attempt, *TURN_ENDS)


def read_function(source: Source, attempt: CallAttempt) -> Reading[None]:
    """Reads the form that Llama's own prompts teach for custom functions."""
    name = (yield from source.run(_NAME)).strip()
    yield from source.expect(">")
    yield from source.run(SPACE)
    yield from read_arguments(source, attempt, name, FUNCTION_END)
    yield from read_end(source, attempt, FUNCTION_END)


def read_bare(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from read_calls(source, attempt, *TURN_ENDS, bare=True)
    yield from read_end(source, attempt, *TURN_ENDS)


def knows(template: str) -> bool:
    return TAG in template or ('"parameters"' in template and "<|start_header_id|>" in template)


FAMILY = Family(
    name="llama3",
    openings=(
        Opening((TAG,), read_tagged),
        Opening((TAG,), read_builtin),
        Opening((FUNCTION,), read_function),
        Opening(("{",), read_bare, "line", consumed=False),
    ),
    knows=knows,
    forms=(CallForm(before='{"name": "{name}", "parameters": ', after="}", separator="; "),),
)
