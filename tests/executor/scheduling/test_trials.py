"""Which sequence is blamed for a failing engine, and when the engine is given up."""

import re

import pytest

from service.executor.scheduling.protocols import EngineLost
from service.executor.scheduling.trials import FAILURES_IN_A_ROW, Trials
from tests.executor.engines import sequence

REASON = RuntimeError("no memory")


def failing(trials: Trials, times: int) -> None:
    for _ in range(times):
        trials.fail([], REASON)


def test_an_engine_that_fails_in_a_row_is_lost() -> None:
    trials = Trials()
    failing(trials, FAILURES_IN_A_ROW - 1)
    with pytest.raises(EngineLost, match=re.escape("failed 3 times in a row, the last time with: " + repr(REASON))):
        failing(trials, 1)


def test_progress_ends_a_row_of_failures() -> None:
    trials = Trials()
    for _ in range(3):
        failing(trials, FAILURES_IN_A_ROW - 1)
        trials.progress()


def test_a_sequence_that_runs_again_is_on_trial_until_it_is_acquitted_or_forgotten() -> None:
    one, other = sequence(1), sequence(2)
    for end in ("acquit", "forget"):
        trials = Trials()
        trials.retry(one)
        assert trials.open
        getattr(trials, end)(other.id)
        assert trials.open
        getattr(trials, end)(one.id)
        assert not trials.open
        assert trials.is_retried(one) == (end == "acquit")
        assert not trials.is_retried(other)


@pytest.mark.parametrize(("lost", "suspected"), [([1], True), ([2], False), ([1, 2], False), ([], False)])
def test_a_sequence_on_trial_that_was_alone_is_suspected(lost: list[int], suspected: bool) -> None:
    trials, sequences = Trials(), {1: sequence(1), 2: sequence(2)}
    trials.retry(sequences[1])
    trials.fail([sequences[each] for each in lost], REASON)
    assert trials.suspect == (sequences[1] if suspected else None)
    trials.blame()
    assert trials.suspect is None


def blamed(trials: Trials, number: int) -> None:
    suspect = sequence(number, prompt=number)
    trials.retry(suspect)
    trials.fail([suspect], REASON)
    trials.blame()


def test_an_engine_that_fails_with_every_prompt_is_lost() -> None:
    trials = Trials()
    for number in range(1, FAILURES_IN_A_ROW):
        blamed(trials, number)
    with pytest.raises(EngineLost, match="failed with 3 prompts in a row, each of them twice"):
        blamed(trials, FAILURES_IN_A_ROW)


def test_one_prompt_that_comes_again_costs_the_engine_nothing() -> None:
    trials = Trials()
    for _ in range(3 * FAILURES_IN_A_ROW):
        blamed(trials, 1)


def test_progress_forgets_what_was_blamed() -> None:
    trials = Trials()
    for number in range(1, 3 * FAILURES_IN_A_ROW):
        blamed(trials, number)
        trials.progress()
