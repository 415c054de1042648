"""How calls stream: at once, in order, and truthfully when they break off."""

import re
import sys
from collections.abc import Callable, Iterable

import pytest

from service.events import Event, ReasoningDelta, TextDelta, ToolCallAbandoned, ToolCallDelta, ToolCallStarted
from service.generation import Tool
from service.tool_calling import FAMILIES, StreamParser, parse
from tests.tool_calling.outputs import TOOLS, choice_of, events

CONTENT = "a long text of the file, written word by word"
ARGUMENTS = '{"path": "a", "content": "' + CONTENT + '"}'


def written(found: Iterable[Event]) -> str:
    return "".join(event.arguments for event in found if isinstance(event, ToolCallDelta))


def call_text(family: str) -> str:
    call = parse(f'<tool_call>{{"name": "write_file", "arguments": {ARGUMENTS}}}</tool_call>', TOOLS).tool_calls
    return FAMILIES[family].forms[0].render(call)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_arguments_stream_while_they_are_written(family: str) -> None:
    text = call_text(family)
    middle = text.index("word by word")
    parser = StreamParser(TOOLS, family)
    found = [event for char in text[:middle] for event in parser.feed(char)]
    assert isinstance(found[0], ToolCallStarted)
    assert found[0].name == "write_file"
    assert written(found).endswith("written ")
    assert sum(isinstance(event, ToolCallDelta) for event in found) > 20


def test_a_name_is_told_before_the_arguments_begin() -> None:
    parser = StreamParser(TOOLS, "hermes")
    assert parser.feed('<tool_call>{"name": "ping", "arguments": ') == []
    (started,) = parser.feed("{")[:1]
    assert isinstance(started, ToolCallStarted)


def test_text_streams_and_only_what_may_be_markup_is_held() -> None:
    parser = StreamParser(TOOLS, "hermes")
    assert parser.feed("Hello") == [TextDelta(0, "Hello")]
    assert parser.feed(" you <tool") == [TextDelta(0, " you")]
    assert parser.feed("box>") == [TextDelta(0, " <toolbox>")]
    assert parser.feed("a\n") == [TextDelta(0, "a")]
    assert parser.finish() == [TextDelta(0, "\n")]


def test_one_feed_gives_one_delta_of_a_kind() -> None:
    parser = StreamParser(TOOLS, "hermes", choice=2)
    found = parser.feed('Hi. <tool_call>{"name": "search", "arguments": {"a": [1, 2], "b": "c"}}</tool_call>')
    assert [type(event) for event in found] == [TextDelta, ToolCallStarted, ToolCallDelta]
    assert {event.choice for event in found if not isinstance(event, str)} == {2}


def test_ids_are_unique_and_well_formed() -> None:
    output = parse('<tool_call>{"name": "ping"}</tool_call>' * 200, TOOLS)
    ids = {call.id for call in output.tool_calls}
    assert len(ids) == 200
    assert all(re.fullmatch(r"call_[a-zA-Z0-9_-]{24}", call_id) for call_id in ids)


def test_a_call_that_breaks_off_is_abandoned_and_its_text_follows() -> None:
    text = '<tool_call>{"name": "search", "arguments": {"q": "abc'
    found, counts = events(text, "hermes")
    assert isinstance(found[0], ToolCallStarted)
    assert written(found) == '{"q": "abc'
    assert found[-2:] == [ToolCallAbandoned(0), TextDelta(0, text)]
    assert choice_of(found).tool_calls == ()
    assert (counts.calls, counts.cut) == (0, 1)


@pytest.mark.parametrize("tail", ['"', '"}', '"}}'])
def test_only_the_end_of_the_model_closes_what_is_open(tail: str) -> None:
    """When the tokens ran out, more might have come: no bracket is added then."""
    text = '<tool_call>{"name": "search", "arguments": {"q": "abc' + tail
    assert [call.arguments for call in parse(text, TOOLS).tool_calls] == ['{"q": "abc"}']
    cut = parse(text, TOOLS, truncated=True)
    assert bool(cut.tool_calls) == tail.startswith('"}')
    assert bool(cut.content) != bool(cut.tool_calls)


@pytest.mark.parametrize(
    ("offered", "name"), [(["go"], "go"), (["functions.go"], "functions.go"), (["go", "functions.go"], "functions.go")]
)
def test_a_namespace_is_taken_off_where_no_tool_has_it(offered: list[str], name: str) -> None:
    output = parse('<tool_call>{"name": "functions.go"}</tool_call>', [Tool(name=tool) for tool in offered])
    assert [call.name for call in output.tool_calls] == [name]


def test_calls_that_count_only_at_the_end_wait_for_it() -> None:
    parser = StreamParser(TOOLS)
    assert parser.feed('Look:\n{"name": "ping", "arguments": {}}\n') == [TextDelta(0, "Look:")]
    found = parser.finish()
    assert [type(event) for event in found] == [ToolCallStarted, ToolCallDelta]
    assert parser.counts.calls == 1


def test_reasoning_of_a_channel_streams_as_reasoning() -> None:
    parser = StreamParser(TOOLS, "harmony")
    assert parser.feed("<|channel|>analysis<|message|>Hm") == [ReasoningDelta(0, "Hm")]
    assert parser.feed(", so<|end|>") == [ReasoningDelta(0, ", so")]


def test_without_tools_text_is_passed_on_as_it_comes() -> None:
    parser = StreamParser([], "hermes")
    assert parser.feed("<tool_call>{ ") == [TextDelta(0, "<tool_call>{ ")]
    assert parser.feed("") == []
    assert parser.finish() == []


def test_a_family_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a family of tool call formats \(hermes, .*\), found 'klingon'"):
        StreamParser(TOOLS, "klingon")


HOSTILE: dict[str, Callable[[int], str]] = {
    "openings": lambda n: "<tool_call>" * n,
    "openings of objects": lambda n: '<tool_call>{"name": "f", "arguments": {"a": "' * n,
    "openings in single quotes": lambda n: "<tool_call>{'name': 'f', 'arguments': {'a': \"" * n,
    "functions that do not end": lambda n: "<function=f><parameter=a>" * n,
    "values that do not end": lambda n: "<tool_call><function=f><parameter=a>" + "</parameter>\n" * n,
    "keys that do not end": lambda n: "<tool_call>f<arg_key>" * n,
    "invocations that do not end": lambda n: '<minimax:tool_call><invoke name="f"><parameter name="a">' * n,
    "python that does not end": lambda n: "[f(a=" * n,
    "python on lines": lambda n: "[f(a=[\n" * n,
    "lists": lambda n: "[TOOL_CALLS][" * n,
    "unknown tools": lambda n: '[TOOL_CALLS]x[ARGS]{"a": "' * n,
    "arguments before a name": lambda n: '<tool_call>{"arguments": {"a": "b"}, ' * n,
    "arguments that never get a name": lambda n: '<tool_call>{"arguments": [' + "1," * n,
    "channels": lambda n: "<|channel|>commentary to=functions.f<|message|>" * n,
    "fences": lambda n: '```json\n{"name": "f", ' * n,
    "fenced calls, and text at last": lambda n: "x\n" + '```json\n{"name": "f", "arguments": {}}\n```\n' * n + "y",
    "code spans": lambda n: "`<tool_call>" * n,
    "ever longer code spans": lambda n: " <tool_call>".join("`" * (i % 97) for i in range(n)),
    "thoughts": lambda n: "<think>" * n,
    "white space": lambda n: "a" + " \n" * n,
    "backslashes": lambda n: '<tool_call>{"name": "f", "arguments": {"a": "' + "\\" * n,
    "quotes": lambda n: "<tool_call>{'name': 'f', 'arguments': {'a': '" + '"' * n,
    "brackets": lambda n: '<tool_call>{"name": "f", "arguments": {"a": ' + "[{" * n,
    "digits": lambda n: '<tool_call>{"name": "f", "arguments": {"a": ' + "9" * n,
    "commas": lambda n: '<tool_call>{"name": "f", "arguments": {' + "," * n,
    "a long call": lambda n: (
        '<tool_call>{"name": "f", "arguments": {"a": [' + '{"b": "c\\n"}, ' * n + "]}}</tool_call>"
    ),
}


def steps(pieces: Iterable[str]) -> int:
    """How many calls of functions the parsing takes."""
    count = 0

    def tick(*_: object) -> None:
        nonlocal count
        count += 1

    parser = StreamParser([Tool(name="f")])
    sys.setprofile(tick)
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.finish()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("size", [1_000_000, 1])
def test_twice_the_text_is_twice_the_work(kind: str, size: int) -> None:
    def pieces(n: int) -> list[str]:
        text = HOSTILE[kind](n)
        return [text[at : at + size] for at in range(0, len(text), size)]

    once, twice = pieces(150), pieces(300)
    growth = sum(map(len, twice)) / sum(map(len, once))
    assert steps(twice) <= 1.1 * growth * steps(once) + 500
