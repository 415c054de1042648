"""Which of several waiting prompts is next."""

from collections.abc import Mapping

PASSED_OVER_AT_MOST = 3


class Turns:
    """The shortest goes first, so a question does not wait until a document is read. Every fourth turn at the latest
    goes to the oldest, so a long prompt keeps at least a quarter of its speed, whatever else arrives."""

    def __init__(self) -> None:
        self._passed_over = 0

    def choose(self, costs: Mapping[int, int]) -> int:
        """Returns the key that is next. `costs` is not empty, and its keys are in order of arrival."""
        oldest = next(iter(costs))
        overdue = self._passed_over >= PASSED_OVER_AT_MOST
        chosen = oldest if overdue else min(costs, key=costs.__getitem__)  # the first of equals
        self._passed_over = 0 if chosen == oldest else self._passed_over + 1
        return chosen
