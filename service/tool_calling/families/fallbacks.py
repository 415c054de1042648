"""Calls of models that know no format: fenced JSON, bare JSON, the text `name({...})`, or a name and JSON on the next
line (GLM-4). Nothing marks these as calls, so they count only for an offered tool with known arguments, and only in the
places that `family.Opening` describes."""

import re
from collections.abc import Sequence

from service.generation import Tool
from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Opening
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import begin_call, read_calls
from service.tool_calling.source import BLANK, SPACE, Cut, Malformed, Reading, Source

INFO_STRINGS = ("", "json", "tool_call", "tool_calls")
# The form for models of an unknown family, because every parser reads it.
FORM = CallForm(before='{"name": "{name}", "arguments": ', after="}")
_INFO = re.compile(r"[^\n`]*")
_NAME = re.compile(r"[^\s(]*")


def openings(tools: Sequence[Tool]) -> tuple[Opening, ...]:
    names = tuple(f"{tool.name}(" for tool in tools)
    lines = tuple(f"{tool.name}\n" for tool in tools)
    return (
        Opening(("```",), read_fenced, "fence"),
        Opening(("{", "["), read_bare, "line", consumed=False),
        Opening(names, read_text_call, "line", consumed=False),
        Opening(lines, read_named, "line", consumed=False),
    )


def read_bare(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from read_calls(source, attempt, bare=True)


def read_fenced(source: Source, attempt: CallAttempt) -> Reading[None]:
    info = yield from source.run(_INFO)
    if info.strip() not in INFO_STRINGS:
        raise Malformed
    yield from source.expect("\n")
    yield from read_calls(source, attempt, "```", bare=True)
    yield from source.run(SPACE)
    yield from source.expect("```")
    yield from source.run(BLANK)
    if (yield from source.peek()) not in ("", "\n"):
        raise Malformed
    attempt.absorb()


def read_named(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = yield from source.run(_NAME)
    yield from source.expect("\n")
    yield from begin_call(source, attempt, name)
    yield from _end_line(source, attempt)


def read_text_call(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = yield from source.run(_NAME)
    yield from source.expect("(")
    yield from source.run(SPACE)
    yield from begin_call(source, attempt, name, ")")
    yield from source.run(SPACE)
    yield from source.expect(")")
    yield from source.skip(";")
    yield from _end_line(source, attempt)


def _end_line(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.run(BLANK)
    following = yield from source.peek()
    if not following and source.truncated:
        raise Cut
    if following not in ("", "\n"):
        raise Malformed  # a sentence about the call
    attempt.end()
