"""Models that go round in circles are noticed."""

import logging

import pytest

from service.generation import Message, ToolCall
from service.tallies import CallTally
from service.tool_calling.loops import REPEATED_TOKENS, REPETITIONS, LoopGuard, same_calls_in_a_row

ASK = Message(role="user", content="Go.")
REMINDER = Message(role="user", content="Mind the rules.")


def turn(place: int, argument: str = "x", result: str = "no") -> tuple[Message, ...]:
    call = ToolCall(f"call{place:05d}", "look", f'{{"at":"{argument}"}}')
    answer = Message(role="tool", content=result, tool_call_id=call.id)
    return Message(role="assistant", content=f"Try {place}.", tool_calls=(call,)), answer


@pytest.mark.parametrize(
    ("messages", "count"),
    [
        ((), 0),
        ((ASK,), 0),
        ((ASK, *turn(0)), 1),
        ((ASK, *(m for i in range(6) for m in turn(i))), 6),
        ((ASK, *turn(0), *turn(1, "y"), *turn(2)), 1),
        ((ASK, *turn(0), *turn(1, result="yes"), *turn(2, result="yes")), 2),
        ((ASK, *turn(0), Message(role="assistant", content="No."), ASK, *turn(1)), 1),
        ((ASK, *turn(0), REMINDER, *turn(1), REMINDER), 2),
    ],
)
def test_equal_calls_with_equal_results_are_counted_from_the_end(messages: tuple[Message, ...], count: int) -> None:
    assert same_calls_in_a_row(messages) == count


@pytest.mark.parametrize(("turns", "repeated"), [(4, 0), (5, 1)])
def test_the_fifth_equal_call_is_logged_and_counted(
    turns: int, repeated: int, caplog: pytest.LogCaptureFixture
) -> None:
    tally = CallTally()
    with caplog.at_level(logging.WARNING):
        LoopGuard((ASK, *(m for i in range(turns) for m in turn(i))), tally, ends=False)
    assert tally.repeated == len(caplog.records) == repeated


@pytest.mark.parametrize(("turns", "ends", "refuses"), [(4, True, False), (5, True, True), (5, False, False)])
def test_a_loop_of_calls_is_refused_if_that_is_set(turns: int, ends: bool, refuses: bool) -> None:
    guard = LoopGuard((ASK, *(m for i in range(turns) for m in turn(i))), CallTally(), ends=ends)
    assert ("5 times in a row" in guard.refusal) == refuses


def repeat(period: int, tokens: int) -> list[int]:
    return [token % period for token in range(tokens)]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(
    ("tokens", "looping"),
    [
        (list(range(5000)), 0),
        (repeat(1, REPEATED_TOKENS * REPETITIONS - 1), 0),
        (repeat(1, REPEATED_TOKENS * REPETITIONS), 1),
        (repeat(100, 100 * REPETITIONS), 1),
        (repeat(100, 100 * (REPETITIONS - 1)), 0),
        (repeat(1, 1000), 1),
    ],
    ids=["no loop", "one token, nearly", "one token", "a paragraph", "a paragraph, nearly", "once only"],
)
def test_the_tenth_equal_stretch_of_an_answer_is_counted_once(tokens: list[int], looping: int, ends: bool) -> None:
    tally = CallTally()
    guard = LoopGuard((), tally, ends=ends)
    for token in tokens:
        guard.feed(token)
    assert tally.looping == looping
    assert guard.ended == (ends and looping == 1)
