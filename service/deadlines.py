"""One timer of the event loop for many equal waits. `asyncio.timeout` would cost as much as the rest of a look-up."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from service.coroutines import go_on

T = TypeVar("T")
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


class DeadlineExpired(TimeoutError):
    pass


class Deadline:
    """Cancels work after `seconds`, like `asyncio.timeout`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limits: TimedQueue[_Limit] = TimedQueue(seconds, _Limit.expire)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises `DeadlineExpired`."""
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            return cast(T, end.value)
        with _Limit(self._limits):
            return await go_on(work, waits_for)


class _Limit:
    """Enter it once, in the task that waits."""

    __slots__ = ("_cancelling", "_expired", "_limits", "_task")

    def __init__(self, limits: "TimedQueue[_Limit]") -> None:
        self._expired = False
        self._limits = limits

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (no coroutine runs outside of a task)
        self._task = task
        self._cancelling = task.cancelling()
        self._limits.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._limits.discard(self)
        # A cancellation by another party meanwhile goes on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise DeadlineExpired from error

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()
