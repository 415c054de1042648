"""The processes that run one model together."""

from typing import Protocol


class RankLost(Exception):
    """A rank is gone, and with it a part of the model. The message names the rank, and the reason if it is known."""


class Ranks(Protocol):
    """The group as seen by one rank. Only the rank's engine thread calls it."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def tell(self, message: bytes) -> None:
        """Sends to all others, in order. Rank 0 alone calls it. Raises `RankLost`."""
        ...

    def hear(self) -> bytes | None:
        """Waits for rank 0's next message; returns None when rank 0 ends in order. Raises `RankLost`."""
        ...

    def largest(self, number: int) -> int:
        """Returns the largest of the numbers that the ranks pass; all ranks must call it. Raises `RankLost`."""
        ...

    def end(self) -> None:
        """Ends the group in order. Rank 0 alone calls it; no call follows."""
        ...

    def fail(self, reason: str) -> None:
        """Leaves the group, and sends the others the reason if they can still be reached."""
        ...
