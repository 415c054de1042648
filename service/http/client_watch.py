import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from starlette.types import Receive

from service.coroutines import go_on

T = TypeVar("T")


class ClientGone(Exception): ...


class ClientWatch:
    """Reads `receive` until the disconnect, so read the request's body before."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` in the current task. Raises `ClientGone` once the cancelled `work` has ended."""
        if self._gone:
            work.close()
            raise ClientGone
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            return cast(T, end.value)
        watching = _Watching(self._receive)
        try:
            result = await go_on(work, waits_for)
        except asyncio.CancelledError:
            if watching.takes_back():
                raise ClientGone from None
            raise
        finally:
            self._gone = await watching.end()
        watching.takes_back()
        return result


class _Watching:
    """Cancels the task that created it when the client disconnects."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._working = asyncio.current_task()
        self._has_cancelled = False
        self._ended = False
        self._task = asyncio.create_task(self._until_disconnect())
        self._task.add_done_callback(self._cancel)

    def takes_back(self) -> bool:
        """Undoes the cancellation. False if another party cancelled the task too."""
        if not self._has_cancelled or self._working is None:
            return False
        self._has_cancelled = False
        return self._working.uncancel() == 0

    async def end(self) -> bool:
        self._ended = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return not self._task.cancelled()

    async def _until_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not self._ended and not task.cancelled() and self._working is not None:
            self._has_cancelled = True
            self._working.cancel()
