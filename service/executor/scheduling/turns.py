from collections.abc import Mapping

# The oldest gets at least every fourth turn, so it keeps a quarter of its speed.
PASSED_OVER_AT_MOST = 3


class Turns:
    """The shortest prompt is next, unless the oldest was passed over too often."""

    def __init__(self) -> None:
        self._passed_over = 0

    def choose(self, costs: Mapping[int, int]) -> int:
        """`costs` is not empty, and in order of arrival."""
        oldest = next(iter(costs))
        overdue = self._passed_over >= PASSED_OVER_AT_MOST
        chosen = oldest if overdue else min(costs, key=costs.__getitem__)  # the first of equals
        self._passed_over = 0 if chosen == oldest else self._passed_over + 1
        return chosen
