import threading
from queue import SimpleQueue

from service.executor.distributed.ranks import RankLost


class _Meeting:
    def __init__(self, size: int, patience_seconds: float) -> None:
        self.numbers = [0] * size
        self.barrier = threading.Barrier(size, timeout=patience_seconds)


class LocalRanks:
    """Ranks as threads of one process, for trials and tests."""

    def __init__(self, rank: int, size: int, inboxes: list[SimpleQueue[bytes | None]], meeting: _Meeting) -> None:
        self.rank = rank
        self.size = size
        self.lost = ""
        self._inboxes = inboxes
        self._meeting = meeting

    def tell(self, message: bytes) -> None:
        if self._meeting.barrier.broken:
            raise RankLost("a rank has failed")
        for inbox in self._inboxes[1:]:
            inbox.put(message)

    def hear(self) -> bytes | None:
        message = self._inboxes[self.rank].get()
        if message is None and self._meeting.barrier.broken:
            raise RankLost("a rank has failed")
        return message

    def largest(self, number: int) -> int:
        meeting = self._meeting
        meeting.numbers[self.rank] = number
        try:
            meeting.barrier.wait()
            largest = max(meeting.numbers)
            meeting.barrier.wait()
        except threading.BrokenBarrierError:
            raise RankLost("a rank has failed") from None
        return largest

    def end(self) -> None:
        for inbox in self._inboxes[1:]:
            inbox.put(None)

    def fail(self, reason: str) -> str:
        self.lost = self.lost or reason
        self._meeting.barrier.abort()
        self.end()
        return self.lost


def local_ranks(size: int, patience_seconds: float = 60.0) -> list[LocalRanks]:
    inboxes: list[SimpleQueue[bytes | None]] = [SimpleQueue() for _ in range(size)]
    meeting = _Meeting(size, patience_seconds)
    return [LocalRanks(rank, size, inboxes, meeting) for rank in range(size)]
