import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec

from service.errors import ServiceError
from service.events import Event
from service.executor.answer_queue import AnswerQueue
from service.executor.process.call_messages import (
    CallAccepted,
    CallEvents,
    CallFailed,
    CallFound,
    CallReading,
    CountCall,
    QueryCall,
    SubmitCall,
)
from service.executor.process.frames import FrameTooLarge, encode_frame
from service.queries import Finding

CallMessage = SubmitCall | CountCall | QueryCall
CallReply = CallAccepted | CallFound | CallReading | CallEvents | CallFailed


class PendingCall:
    """The `Answer` of a `SubmitCall`, and what waits for other replies. `sequences` is its share of the queue.

    `inside`: the present process has it. `received` counts its events, `deaths` the processes that died with it. A call
    with `alone_until` runs alone until it has more events than that, or ends. `deadline` limits the wait for a process.
    """

    def __init__(self, message: CallMessage, sequences: int, left: Callable[["PendingCall"], None]) -> None:
        self.message = message
        self.sequences = sequences
        self.accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue = AnswerQueue(lambda: left(self))
        self.inside = False
        self.prompt_tokens = 0
        self.read_tokens: int | None = None
        self.received = 0
        self.deaths = 0
        self.alone_until: int | None = None
        self.deadline: asyncio.TimerHandle | None = None

    @property
    def started(self) -> bool:
        return self.read_tokens is not None

    @property
    def suspected(self) -> bool:
        return self.alone_until is not None

    def digest(self) -> bytes:
        """The same for every call with this request. Empty if it cannot be encoded, and therefore is never inside."""
        with suppress(FrameTooLarge, RecursionError, UnicodeError):
            return hashlib.sha256(encode_frame((msgspec.structs.replace(self.message, call=0),))).digest()
        return b""

    def events(self) -> AsyncIterator[Event]:
        return self.queue.events()

    async def aclose(self) -> None:
        self.queue.close()

    def waits_no_longer(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def accept(self, found: int | Finding) -> None:
        if not self.accepted.done():
            self.accepted.set_result(found)

    def fail(self, error: ServiceError) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)
        self.queue.fail(error)
