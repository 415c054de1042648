"""How far ahead is guessed, by how it went."""

from hypothesis import given
from hypothesis import strategies as st

from service.executor.speculation.drafter import LONGEST_REST, MOST_DRAFTED, Pace


def run(pace: Pace, right: list[int]) -> list[int]:
    """How many were guessed each time, where so many would have been right."""
    drafted = []
    for limit in right:
        length = pace.length
        drafted.append(length)
        if length:
            pace.learn(length, min(length, limit))
        else:
            pace.pass_over(1)
    return drafted


def test_all_right_doubles_up_to_the_most() -> None:
    drafted = run(Pace(), [100] * 6)
    assert drafted == sorted(drafted)
    assert drafted[-1] == MOST_DRAFTED


def test_some_right_is_one_more_than_that() -> None:
    pace = Pace()
    run(pace, [100] * 6)
    assert run(pace, [5, 5, 2]) == [MOST_DRAFTED, 6, 6]
    assert pace.length == 3


def test_a_guess_that_is_never_right_costs_next_to_nothing() -> None:
    drafted = run(Pace(), [0] * 2000)
    assert sum(drafted[:1000]) < 20
    assert sum(drafted[1000:]) <= 1000 // LONGEST_REST + 1


def test_what_comes_right_again_is_found_again() -> None:
    pace = Pace()
    run(pace, [0] * 2000)
    assert max(run(pace, [100] * (LONGEST_REST + 8))) == MOST_DRAFTED


@given(st.lists(st.integers(0, 20), max_size=200))
def test_it_stays_within_its_bounds(right: list[int]) -> None:
    assert all(0 <= length <= MOST_DRAFTED for length in run(Pace(), right))
