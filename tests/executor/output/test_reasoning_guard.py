"""When the server ends reasoning, byte by byte: a token is a byte."""

import msgspec
import pytest

from service.executor.output.reasoning_guard import ReasoningGuard, open_guard
from service.executor.output.vocabulary import Vocabulary
from service.executor.scheduling.messages import Prompt, ReasoningForm
from service.executor.scheduling.protocols import EndReason
from service.tallies import CallTally
from tests.executor.engines import sequence

CLOSING, ANSWER = (1, 2), (3,)
FORM = ReasoningForm("<think>", "</think>", CLOSING, ANSWER)


class Bench:
    def __init__(self, *, inside: bool = True, budget: int | None = None, retries: bool = True) -> None:
        self.tally = CallTally()
        self.guard = ReasoningGuard(
            FORM, lambda token: bytes([token]), self.tally, inside=inside, budget=budget, retries=retries
        )

    def read(self, text: str | bytes) -> int | None:
        """The number of bytes after which the reasoning is closed."""
        for count, byte in enumerate(text.encode() if isinstance(text, str) else text, 1):
            self.guard.feed(byte)
            if self.guard.interjection(None, 100):
                assert self.guard.interjection(None, 100) == CLOSING
                return count
        return None

    def end(self, reason: EndReason = "stop", room: int = 100) -> tuple[int, ...]:
        return self.guard.interjection(reason, room)


@pytest.mark.parametrize("budget", [1, 5, 12])
def test_a_budget_counts_the_tokens_between_the_markers(budget: int) -> None:
    assert Bench(budget=budget).read("hm, let me see") == budget
    assert Bench(budget=budget, inside=False).read(" <think>hm, let me see") == len(" <think>") + budget


def test_reasoning_that_ends_in_time_is_left_alone() -> None:
    assert Bench(budget=12).read("hm.</think>And now a long answer") is None
    assert Bench(budget=3, inside=False).read("No thought at all <think> here") is None


def test_no_character_is_cut() -> None:
    bench = Bench(budget=2)
    assert bench.read("a€b") == 4
    assert bench.tally.over_budget > 0


@pytest.mark.parametrize("text", ["", "hm", "hm</think>", "hm</think>\n\n", "hm</thi"])
def test_an_answer_of_nothing_but_reasoning_goes_on_once(text: str) -> None:
    bench = Bench()
    bench.read(text)
    assert bench.end("length") == ()
    assert bench.end() == (ANSWER if "</think>" in text else (*CLOSING, *ANSWER))
    assert bench.end() == ()
    assert bench.tally.unanswered == 1


@pytest.mark.parametrize("text", ["", "\n", "yes", "<think>hm</think>yes"])
def test_other_answers_end_as_they_are(text: str) -> None:
    bench = Bench(inside=False)
    bench.read(text)
    assert bench.end() == ()


def test_without_room_nothing_happens() -> None:
    bench = Bench(budget=1)
    bench.guard.feed(ord("a"))
    assert bench.guard.interjection(None, len(CLOSING)) == ()
    assert bench.end(room=len(CLOSING) + len(ANSWER)) == ()
    assert (bench.tally.over_budget, bench.tally.unanswered) == (0, 0)


def test_the_second_attempt_can_be_switched_off() -> None:
    bench = Bench(retries=False)
    bench.read("hm")
    assert bench.end() == ()


class Characters:
    detokenizer = None

    def decode(self, tokens: list[int]) -> str:
        return chr(tokens[0])


@pytest.mark.parametrize("retries", [True, False])
def test_the_request_decides_whether_there_is_a_second_attempt(retries: bool) -> None:
    one = msgspec.structs.replace(
        sequence(1, answer_after_reasoning=retries), prompt=Prompt([7], in_reasoning=True, reasoning=FORM)
    )
    guard = open_guard(one, Vocabulary(Characters()), CallTally())
    assert guard is not None
    guard.feed(ord("a"))
    assert guard.interjection("stop", 100) == ((*CLOSING, *ANSWER) if retries else ())
