"""One timer of the event loop for many equal waits. `asyncio.timeout` would cost as much as the rest of a look-up."""

import asyncio
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class TimedQueue(Generic[Item]):
    """Items in the order in which they were added. After `seconds`, an item is removed and passed to `expire`."""

    def __init__(self, seconds: float, expire: Callable[[Item], None]) -> None:
        self.seconds = seconds
        self._expire = expire
        self._ends: dict[Item, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, item: Item) -> bool:
        return item in self._ends

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, item: Item) -> None:
        """An item that is already there starts again."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.seconds
        self._ends.pop(item, None)
        self._ends[item] = ends
        if self._timer is None:
            self._timer = loop.call_at(ends, self._expire_late)

    def discard(self, item: Item) -> None:
        self._ends.pop(item, None)

    def expire_oldest(self) -> bool:
        """Returns whether there was an item."""
        for item in self._ends:
            del self._ends[item]
            self._expire(item)
            return True
        return False

    def expire_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.expire_oldest():
            pass

    def _expire_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for item, ends in list(self._ends.items()):
            if ends > loop.time():
                self._timer = loop.call_at(ends, self._expire_late)
                return
            del self._ends[item]
            self._expire(item)


class Deadline:
    """`with deadline.limit(): await ...` raises `TimeoutError` after `seconds`, like `asyncio.timeout`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limits: TimedQueue[Limit] = TimedQueue(seconds, Limit.expire)

    def limit(self) -> "Limit":
        """Enter it once, in the task that waits."""
        return Limit(self._limits)


class Limit:
    """One wait. `expired` shows afterwards whether it took too long."""

    __slots__ = ("_cancelling", "_limits", "_task", "expired")

    def __init__(self, limits: "TimedQueue[Limit]") -> None:
        self.expired = False
        self._limits = limits

    def __enter__(self) -> "Limit":
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (no coroutine runs outside of a task)
        self._task = task
        self._cancelling = task.cancelling()
        self._limits.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._limits.discard(self)
        # A cancellation by another party meanwhile goes on.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self.expired = True
        self._task.cancel()
