"""Guesses where a grammar leaves no choice: brackets, keys, the markers of a call. Knows no MLX.

The bytes are certain there, and the tokens nearly: the tokenizer would write them so, the model may do otherwise.
"""

from typing import Protocol


class Grammar(Protocol):
    """What is needed of a `Constraint`, which follows the same sequence."""

    def forced(self) -> list[int]: ...


class ForcedTokens:
    """A `Drafter` of a constrained answer."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._forced: list[int] = []

    def can_draft(self) -> bool:
        self._forced = self._grammar.forced()
        return len(self._forced) > 0

    def draft(self, at_most: int) -> list[int]:
        return self._forced[:at_most]

    def follow(self, tokens: list[int]) -> None:
        """The grammar has."""
