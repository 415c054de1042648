"""Who goes next where one has to wait for another. Knows no MLX."""

from collections.abc import Mapping

PASSED_OVER_AT_MOST = 3


class Turns:
    """Shortest first, so that a question does not wait for a document to be read; but every fourth turn at the latest
    belongs to whoever has waited longest, so that the document is read too.

    A short one is therefore held up by at most one turn in four, and a long one advances at no less than a quarter of
    the speed, whatever keeps coming.
    """

    def __init__(self) -> None:
        self._passed_over = 0

    def choose(self, costs: Mapping[int, int]) -> int:
        """The key whose turn it is. `costs` is never empty, and stands in the order in which they came."""
        oldest = next(iter(costs))
        overdue = self._passed_over >= PASSED_OVER_AT_MOST
        chosen = oldest if overdue else min(costs, key=costs.__getitem__)  # of equals, the first
        self._passed_over = 0 if chosen == oldest else self._passed_over + 1
        return chosen
