from typing import Protocol


class RankLost(Exception): ...


class Ranks(Protocol):
    """The group, for one rank's engine thread. Only rank 0 calls `tell` and `end`."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def tell(self, message: bytes) -> None:
        """Sends to all others, in order. Raises `RankLost`."""
        ...

    def hear(self) -> bytes | None:
        """Returns None at rank 0's orderly end. Raises `RankLost`."""
        ...

    def largest(self, number: int) -> int:
        """All ranks must call it. Raises `RankLost`."""
        ...

    def end(self) -> None: ...

    def fail(self, reason: str) -> str:
        """Leaves the group, and sends the reason if possible. Returns why the group ended, which may be another rank's
        loss."""
        ...
