"""A time limit for waits that nearly always end at once."""

import asyncio
from types import TracebackType


class Deadline:
    """Limits any number of waits to `seconds` each, with one timer for all of them: `with deadline.limit(): await ...`
    raises `TimeoutError` as `asyncio.timeout` does.

    That one sets a timer of the event loop for each wait and takes it back, which costs as much as all else that is
    done to look up an answer. As all waits here are limited alike, the first to begin is the first that is late.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._limits: dict[Limit, None] = {}  # in the order in which they began
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> "Limit":
        """To be entered once, in the task that waits."""
        return Limit(self)

    def begin(self, limit: "Limit") -> None:
        loop = asyncio.get_running_loop()
        limit.ends = loop.time() + self.seconds
        self._limits[limit] = None
        if self._timer is None:
            self._timer = loop.call_at(limit.ends, self._end_late)

    def end(self, limit: "Limit") -> None:
        self._limits.pop(limit, None)

    def _end_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for limit in list(self._limits):
            if limit.ends > loop.time():
                self._timer = loop.call_at(limit.ends, self._end_late)
                return
            del self._limits[limit]
            limit.expire()


class Limit:
    """One wait. `expired` tells afterwards whether it took too long."""

    __slots__ = ("_cancelling", "_deadline", "_task", "ends", "expired")

    def __init__(self, deadline: Deadline) -> None:
        self.ends = 0.0
        self.expired = False
        self._deadline = deadline

    def __enter__(self) -> "Limit":
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (no coroutine runs outside of a task)
        self._task = task
        self._cancelling = task.cancelling()
        self._deadline.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._deadline.end(self)
        # Who else wanted the task cancelled in the meantime gets that.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self.expired = True
        self._task.cancel()
