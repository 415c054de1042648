from typing import Protocol

# Tokens checked at once. Measured on a CPU: reading 17 tokens takes about as long as reading two one by one.
MOST_DRAFTED = 16

FIRST_DRAFTED = 3

# Rests are in tokens. At the longest rest, a drafter that is always wrong costs one token in a hundred.
SHORTEST_REST = 8
LONGEST_REST = 128

# A sequence starts as if three of four drafted tokens had been right. Older ones count less.
FIRST_RIGHT, FIRST_JUDGED = 0.75, 4.0
OLDER = 0.9


class Drafter(Protocol):
    def can_draft(self) -> bool: ...

    def draft(self, at_most: int) -> list[int]: ...

    def follow(self, tokens: list[int]) -> None: ...


class Pace:
    """A guess may have one token more than were right, or twice as many if all were. If none was right the limit
    halves; after 1 the drafter rests, twice as long each time."""

    def __init__(self) -> None:
        self._length = FIRST_DRAFTED
        self._rest = 0
        self._next_rest = SHORTEST_REST
        self._right = FIRST_RIGHT * FIRST_JUDGED
        self._judged = FIRST_JUDGED

    def __repr__(self) -> str:
        return f"<Pace {self.length}, rests for {self._rest}>"

    @property
    def length(self) -> int:
        return 0 if self._rest > 0 else self._length

    @property
    def right(self) -> float:
        """The share of guessed tokens that were right, up to the first wrong one of each guess."""
        return self._right / self._judged

    def learn(self, drafted: int, accepted: int) -> None:
        self._right = OLDER * self._right + accepted
        self._judged = OLDER * self._judged + accepted + (accepted < drafted)
        if accepted > 0:
            self._next_rest = SHORTEST_REST
            self._length = min(MOST_DRAFTED, max(self._length, 2 * drafted) if accepted == drafted else accepted + 1)
            return
        self._length //= 2
        if self._length == 0:
            self._length = 1
            self._rest = self._next_rest
            self._next_rest = min(LONGEST_REST, 2 * self._next_rest)

    def give_up(self) -> None:
        """Rests as long as possible: guesses take more time than they save."""
        self._rest = LONGEST_REST
        self._length = FIRST_DRAFTED

    def pass_over(self, tokens: int) -> None:
        self._rest = max(0, self._rest - tokens)
