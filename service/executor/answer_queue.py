import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from service.errors import EngineFailed, ServiceError
from service.events import Done, Event


class AnswerQueue:
    """Passes one answer's events to its one reader, on the event loop. `left` is called at most once, if the reader
    leaves before the last event."""

    def __init__(self, left: Callable[[], None]) -> None:
        self.ended = False
        self._left = left
        self._ready: deque[Event | ServiceError] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def refusal(self) -> ServiceError | None:
        return self._ready[0] if self._ready and isinstance(self._ready[0], ServiceError) else None

    def put(self, items: Iterable[Event | ServiceError], *, last: bool = False) -> None:
        """Items after the `last` are dropped."""
        if self.ended:
            return
        self.ended = last
        self._ready.extend(items)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: ServiceError) -> None:
        self.put([error], last=True)

    async def events(self) -> AsyncIterator[Event]:
        """Raises the error of `fail`."""
        try:
            while True:
                while self._ready:
                    event = self._ready.popleft()
                    if isinstance(event, ServiceError):
                        raise event
                    yield event
                    if isinstance(event, Done):
                        return
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self.close()

    def close(self) -> None:
        if not self.ended:
            self.fail(EngineFailed("The answer was closed before it was finished."))
            self._left()
