"""Submits requests of clients that may leave before they are accepted: while the model loads, or others come first."""

import asyncio
from collections.abc import Awaitable

from starlette.types import Receive

from service.executor.base import Answer
from service.http.body import ClientGone
from service.http.streaming import disconnected


async def submit_watched(receive: Receive, submitting: Awaitable[Answer]) -> Answer:
    """The answer, once it is accepted. Raises `ClientGone` when the client goes away first; `submitting` was cancelled.

    Reads `receive` until the disconnect, so the body must have been read before. What does not wait for anything, as a
    hit, pays for a callback that is never called.
    """
    watch = _Watch(receive)
    try:
        answer = await submitting
    except asyncio.CancelledError:
        if watch.has_cancelled():
            raise ClientGone from None
        raise
    finally:
        await watch.end()
    if watch.client_gone:
        await answer.aclose()
        raise ClientGone
    return answer


class _Watch:
    """Cancels the task that makes it when the client goes away, beginning with the loop's next turn."""

    def __init__(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        self.client_gone = False
        self._receive = receive
        self._submitting = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._cancelled = False
        self._ended = False
        self._start = loop.call_soon(self._begin)

    def has_cancelled(self) -> bool:
        """Whether the task's cancellation is this one's, and nobody else's besides. Then the task may go on."""
        return self._cancelled and self._submitting is not None and self._submitting.uncancel() == 0

    async def end(self) -> None:
        self._ended = True
        self._start.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self.client_gone = not self._watching.cancelled()

    def _begin(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(disconnected(self._receive))
        self._watching.add_done_callback(self._leave)

    def _leave(self, watching: asyncio.Task[None]) -> None:
        if not self._ended and not watching.cancelled() and self._submitting is not None:
            self._cancelled = True
            self._submitting.cancel()
