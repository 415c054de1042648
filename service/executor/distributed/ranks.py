from typing import Protocol


class RankLost(Exception):
    """The message names the rank, and the reason if it is known."""


class Ranks(Protocol):
    """The group as one rank's engine thread sees it."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def tell(self, message: bytes) -> None:
        """Sends to all others, in order; rank 0 only. Raises `RankLost`."""
        ...

    def hear(self) -> bytes | None:
        """Waits for rank 0; returns None at its orderly end. Raises `RankLost`."""
        ...

    def largest(self, number: int) -> int:
        """Returns the largest number; all ranks must call it. Raises `RankLost`."""
        ...

    def end(self) -> None:
        """Ends the group in order; rank 0 only."""
        ...

    def fail(self, reason: str) -> None:
        """Leaves the group, and sends the reason if possible."""
        ...
