"""Guesses where a grammar leaves no choice: brackets, keys, the markers of a call.

The bytes are certain there, and the tokens nearly so: the model may split the same bytes in another way than the
tokenizer.
"""

from collections.abc import Callable


class ForcedTokens:
    """A `Drafter` of a constrained answer. `forced` returns the tokens that must come next, none if there is a
    choice."""

    def __init__(self, forced: Callable[[], list[int]]) -> None:
        self._find = forced
        self._forced: list[int] = []

    def can_draft(self) -> bool:
        self._forced = self._find()
        return len(self._forced) > 0

    def draft(self, at_most: int) -> list[int]:
        return self._forced[:at_most]

    def follow(self, tokens: list[int]) -> None:
        """Does nothing: the sequence's own constraint follows the tokens."""
