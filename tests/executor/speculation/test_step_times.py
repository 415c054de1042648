"""How many tokens are guessed, by measured times."""

import pytest

from service.executor.speculation.step_times import GUESSES_IN_A_ROW, MEASURED_STEPS, StepTimes, useful_guess

# Seconds of a step by the number of guessed tokens. The CPU is the one of the benchmarks; the others follow from the
# machine's memory bandwidth, which reading a few tokens more does not change, and were not measured.
CPU = {0: 0.065, 1: 0.075, 2: 0.08, 4: 0.09, 8: 0.105, 16: 0.13}
M2_8B = {0: 0.1, 1: 0.105, 2: 0.11, 4: 0.13, 8: 0.2, 16: 0.4}
M4_MAX_8B = {0: 0.02, 1: 0.021, 2: 0.021, 4: 0.022, 8: 0.024, 16: 0.045}
M1_PRO_EXPERTS = {0: 0.015, 1: 0.022, 2: 0.028, 4: 0.038, 8: 0.055, 16: 0.085}
M5_MAX_EXPERTS = {0: 0.0125, 1: 0.018, 2: 0.023, 4: 0.031, 8: 0.042, 16: 0.06}
RTX_4090 = {0: 0.008, 1: 0.009, 2: 0.009, 4: 0.009, 8: 0.0095, 16: 0.01}
SLOW_ROWS = {0: 0.01, 1: 0.02, 2: 0.03, 4: 0.05, 8: 0.09, 16: 0.17}


@pytest.mark.parametrize(
    ("seconds", "right", "guessed"),
    [
        (CPU, 0.95, 16),
        (CPU, 0.7, 4),
        (CPU, 0.3, 2),
        (CPU, 0.1, 0),
        (M2_8B, 0.95, 8),
        (M2_8B, 0.05, 0),
        (M4_MAX_8B, 0.95, 8),
        (M4_MAX_8B, 0.5, 4),
        (M4_MAX_8B, 0.02, 0),
        (M1_PRO_EXPERTS, 0.95, 16),
        (M1_PRO_EXPERTS, 0.7, 2),
        (M1_PRO_EXPERTS, 0.4, 0),
        (M5_MAX_EXPERTS, 0.95, 16),
        (M5_MAX_EXPERTS, 0.5, 1),
        (RTX_4090, 0.95, 16),
        (RTX_4090, 0.2, 4),
        (SLOW_ROWS, 0.99, 0),
    ],
)
def test_as_many_are_guessed_as_pay(seconds: dict[int, float], right: float, guessed: int) -> None:
    assert useful_guess(seconds, 16, right) == guessed
    best = max([0, 1, 2, 4, 8, 16], key=lambda size: sum(right**place for place in range(size + 1)) / seconds[size])
    assert guessed in (0, best)


def test_what_was_not_measured_is_tried() -> None:
    assert useful_guess({}, 5, 0.1) == 5
    assert useful_guess({0: 0.01, 1: 0.011}, 16, 0.9) == 16
    assert useful_guess({0: 0.01, 1: 0.011}, 3, 0.9) == 3


def test_times_count_once_there_are_enough() -> None:
    times = StepTimes()
    for _ in range(MEASURED_STEPS - 1):
        times.learn_plain(0.01)
        times.learn_guess("lookup", 16, 1.0)
    assert times.useful_guess("lookup", 16, 0.9) == 16
    times.learn_plain(0.01)
    times.learn_guess("lookup", 16, 1.0)
    assert times.useful_guess("lookup", 16, 0.9) < 16
    assert times.useful_guess("another", 16, 0.9) == 16


def test_a_step_that_was_disturbed_hardly_counts() -> None:
    times = StepTimes()
    for _ in range(100):
        times.learn_plain(0.01)
        times.learn_guess("lookup", 4, 0.012)
    times.learn_guess("lookup", 4, 60.0)
    assert times.useful_guess("lookup", 4, 0.7) > 0


def test_the_useful_guess_of_each_drafter_can_be_seen() -> None:
    times = StepTimes()
    for _ in range(MEASURED_STEPS):
        times.learn_plain(0.01)
        times.learn_guess("lookup", 4, 0.012)
        times.learn_guess("model", 1, 1.0)
    assert times.useful_guesses(4, 0.75) == {"lookup": 4, "model": 0}


def test_steps_without_a_guess_are_timed_again() -> None:
    """They were timed on a busy machine."""
    times = StepTimes()
    for _ in range(MEASURED_STEPS):
        times.learn_plain(0.12)
        times.learn_guess("lookup", 1, 0.09)
    guesses = 1
    while times.useful_guess("lookup", 1, 0.1) > 0:
        times.learn_guess("lookup", 1, 0.09)
        guesses += 1
    assert guesses == GUESSES_IN_A_ROW
    while times.useful_guess("lookup", 1, 0.9) == 0:
        times.learn_plain(0.06)
    for _ in range(50):
        times.learn_plain(0.06)
    assert times.useful_guess("lookup", 1, 0.1) == 0
