import logging

import pytest

from service.events import Event, TextDelta, ToolCallAbandoned, ToolCallDelta, ToolCallStarted
from service.generation import Tool
from service.tallies import CallTally
from service.tool_calling import StreamParser
from service.tool_calling.watch import CallWatch

TOOL = Tool(name="go", parameters={"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]})
START = ToolCallStarted(0, "call_0", "go")


@pytest.mark.parametrize(
    ("events", "mismatched"),
    [
        ([START, ToolCallDelta(0, '{"to": '), ToolCallDelta(0, '"x"}')], 0),
        ([START, ToolCallDelta(0, '{"to": 1}')], 1),
        ([START, ToolCallDelta(0, "{}"), START, ToolCallDelta(0, "{}")], 2),
        ([START, ToolCallDelta(0, "{}"), TextDelta(0, "x")], 1),
        ([START, ToolCallDelta(0, "{"), ToolCallAbandoned(0), TextDelta(0, "{")], 0),
        ([TextDelta(0, "x")], 0),
    ],
)
def test_calls_that_do_not_fit_are_counted_and_told_by_name(
    events: list[Event], mismatched: int, caplog: pytest.LogCaptureFixture
) -> None:
    tally = CallTally()
    watch = CallWatch([TOOL], tally)
    with caplog.at_level(logging.WARNING):
        for event in events:
            watch.feed([event])
        watch.finish(CallTally())
    assert tally.mismatched == len(caplog.records) == mismatched
    assert all("'" not in record.getMessage() and " go " in record.getMessage() for record in caplog.records)


def test_what_the_parser_counted_is_added_up() -> None:
    tally = CallTally(cut=1)
    CallWatch([TOOL], tally).finish(CallTally(calls=5, repaired=1, cut=2, broken=3, unknown=4))
    assert tally == CallTally(calls=5, repaired=1, cut=3, broken=3, unknown=4)


CALL = '<tool_call>\n{"name": "go", "arguments": {"to": "x"}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("text", [CALL, f"{CALL}\n{CALL}", f"First: {CALL} and then {CALL}", f"{CALL} done"])
def test_a_single_call_ends_the_text(text: str, size: int) -> None:
    parser = StreamParser([TOOL], "hermes", single=True)
    events: list[Event] = []
    for start in range(0, len(text), size):
        events += parser.feed(text[start : start + size])
    events += parser.finish()
    assert parser.done
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["go"]
    assert "".join(event.arguments for event in events if isinstance(event, ToolCallDelta)) == '{"to": "x"}'
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert said == ("First:" if text.startswith("First") else "")


def test_without_a_whole_call_nothing_ends() -> None:
    parser = StreamParser([TOOL], "hermes", single=True)
    broken = '<tool_call>\n{"name": "go", "arguments": {"to": !}}\n</tool_call>'
    events = [*parser.feed(f"{broken} and more"), *parser.finish()]
    assert not parser.done
    assert "".join(event.text for event in events if isinstance(event, TextDelta)).endswith("and more")
