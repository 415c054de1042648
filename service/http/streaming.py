import asyncio
import logging
import time
from collections.abc import Callable

from starlette.types import Send

from service.dialects.base import StreamEncoder
from service.errors import InternalError, ServiceError
from service.events import Event
from service.executor.base import Answer

logger = logging.getLogger("anyclaude.stream")


async def replay_stream(answer: Answer, encoder: StreamEncoder, observe: Callable[[Event], None]) -> bytes:
    """Returns all frames. Sent with their length, they need no chunked encoding."""
    frames = [encoder.start()]
    async for event in answer.events():
        observe(event)
        frames.append(encoder.feed(event))
    return b"".join(frames)


class StreamWriter:
    """Sends whole frames, and a keep-alive frame after each `interval` seconds of silence while `alive` is true."""

    def __init__(
        self,
        send: Send,
        encoder: StreamEncoder,
        *,
        interval: float,
        alive: Callable[[], bool],
        observe: Callable[[Event], None],
    ) -> None:
        self._send = send
        self._encoder = encoder
        self._interval = interval
        self._alive = alive
        self._observe = observe
        self._sending = asyncio.Lock()
        self._last_sent = time.monotonic()

    async def write(self, answer: Answer) -> ServiceError | None:
        """Ends the body properly on every path. Returns the error that ended it."""
        keep_alive = asyncio.ensure_future(self._keep_alive())
        try:
            error = await self._write_events(answer)
        finally:
            keep_alive.cancel()
        await self._send({"type": "http.response.body", "body": b""})
        return error

    async def _write_events(self, answer: Answer) -> ServiceError | None:
        try:
            await self._write(self._encoder.start())
            async for event in answer.events():
                self._observe(event)
                await self._write(self._encoder.feed(event))
        except ServiceError as error:
            await self._write(self._encoder.fail(error))
            return error
        except Exception:
            logger.exception("a stream failed")
            defect = InternalError("The server failed while it generated; its log has the details.")
            await self._write(self._encoder.fail(defect))
            return defect
        return None

    async def _write(self, frames: bytes) -> None:
        if frames:
            async with self._sending:
                await self._send({"type": "http.response.body", "body": frames, "more_body": True})
            self._last_sent = time.monotonic()

    async def _keep_alive(self) -> None:
        while True:
            silent = time.monotonic() - self._last_sent
            if silent < self._interval:
                await asyncio.sleep(self._interval - silent)
            elif self._alive():
                await self._write(self._encoder.keep_alive())
            else:
                await asyncio.sleep(self._interval)
