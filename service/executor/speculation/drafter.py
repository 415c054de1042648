"""Who guesses, and how far ahead. Knows no MLX."""

from typing import Protocol

import msgspec

MOST_DRAFTED = 16
"""Tokens checked at once. Measured on a CPU: to read 17 takes about as long as to read two one by one."""

FIRST_DRAFTED = 3
SHORTEST_REST = 8
LONGEST_REST = 128
"""In tokens. A guess that is wrong every time costs one token in a hundred then."""


class Drafter(Protocol):
    """Guesses how one sequence goes on."""

    def can_draft(self) -> bool:
        """Whether it is worth asking. Costs next to nothing."""
        ...

    def draft(self, at_most: int) -> list[int]:
        """The tokens that may come next, in order; none where it has no idea."""
        ...

    def follow(self, tokens: list[int]) -> None:
        """These have come next, whatever was guessed."""
        ...


class DraftTally(msgspec.Struct):
    """Over all answers, in tokens: guessed, and of these accepted. Written by the engine's thread alone."""

    drafted: int = 0
    accepted: int = 0


class Pace:
    """How many tokens one drafter may guess. As many as were right the last time, and one more; twice as many where
    all were right. One that is wrong from the first token on guesses less and less, and then rests, longer each time.
    """

    def __init__(self) -> None:
        self._length = FIRST_DRAFTED
        self._rest = 0
        self._next_rest = SHORTEST_REST

    def __repr__(self) -> str:
        return f"<Pace {self.length}, rests for {self._rest}>"

    @property
    def length(self) -> int:
        return 0 if self._rest > 0 else self._length

    def learn(self, drafted: int, accepted: int) -> None:
        if accepted > 0:
            self._next_rest = SHORTEST_REST
            self._length = min(MOST_DRAFTED, max(self._length, 2 * drafted) if accepted == drafted else accepted + 1)
            return
        self._length //= 2
        if self._length == 0:
            self._length = 1
            self._rest = self._next_rest
            self._next_rest = min(LONGEST_REST, 2 * self._next_rest)

    def pass_over(self, tokens: int) -> None:
        """So many tokens came without a guess of this drafter."""
        self._rest = max(0, self._rest - tokens)
