"""The processes that run one model together."""

from typing import Protocol


class RankLost(Exception):
    """A rank is gone, and with it a part of the model. The message says which, and why, where that is known."""


class Ranks(Protocol):
    """The processes that run one model together, seen by one of them. Only its engine's thread calls it."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def tell(self, message: bytes) -> None:
        """Reaches all others, in order. Of rank 0 alone. Raises `RankLost`."""
        ...

    def hear(self) -> bytes | None:
        """What rank 0 tells next, however long that takes; None when it ends in an orderly way. Raises `RankLost`."""
        ...

    def largest(self, number: int) -> int:
        """Of the numbers that all ranks give, each of which has to call this. Raises `RankLost`."""
        ...

    def end(self) -> None:
        """Tells the others that it is over, as it should be. Of rank 0 alone; nothing follows."""
        ...

    def fail(self, reason: str) -> None:
        """Leaves the others, who are told why as far as they can be."""
        ...
