"""How far ahead is guessed, by how it went."""

from hypothesis import given
from hypothesis import strategies as st

from service.executor.speculation.drafter import MOST_DRAFTED, Pace


def run(pace: Pace, right: list[int]) -> list[int]:
    """How many were guessed each time, where so many would have been right."""
    drafted = []
    for limit in right:
        drafted.append(pace.length)
        pace.learn(pace.length, min(pace.length, limit))
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


def test_none_right_is_half_as_many() -> None:
    pace = Pace()
    run(pace, [100] * 6)
    assert run(pace, [0] * 6) == [16, 8, 4, 2, 1, 1]


@given(st.lists(st.integers(0, 20), max_size=200))
def test_it_stays_within_its_bounds(right: list[int]) -> None:
    assert all(1 <= length <= MOST_DRAFTED for length in run(Pace(), right))
