import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executor.scheduling.turns import PASSED_OVER_AT_MOST, Turns


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({1: 5}, 1),
        ({1: 9, 2: 3, 3: 4}, 2),
        ({1: 4, 2: 4}, 1),
        ({5: 9, 2: 0, 3: 0}, 2),
    ],
    ids=["alone", "the shortest", "of equals, the first", "who needs no more"],
)
def test_the_shortest_goes_first(costs: dict[int, int], chosen: int) -> None:
    assert Turns().choose(costs) == chosen


def test_a_long_one_gets_every_fourth_turn_while_short_ones_keep_coming() -> None:
    turns = Turns()
    assert [turns.choose({0: 1000, i: 1}) for i in range(1, 10)] == [1, 2, 3, 0, 5, 6, 7, 0, 9]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.lists(st.integers(1, 50), max_size=200))
def test_nobody_waits_for_ever(costs: list[int], arrivals: list[int]) -> None:
    """One token a turn, and one more arrives with every turn: the first still ends in four turns a token."""
    turns, first = Turns(), costs[0]
    left = dict(enumerate(costs))
    for turn, cost in enumerate(arrivals, start=1):
        chosen = turns.choose(left)
        left[chosen] -= 1
        if left[chosen] == 0:
            del left[chosen]
        left[len(costs) + turn] = cost
        assert 0 not in left or turn < first * (PASSED_OVER_AT_MOST + 1)
