import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from service.errors import ServiceError
from service.events import Event
from service.executor.answer_queue import AnswerQueue
from service.executor.process.messages import (
    CallAccepted,
    CallCounted,
    CallEvents,
    CallFailed,
    CallFound,
    CountCall,
    QueryCall,
    SubmitCall,
)
from service.queries import Finding

CallMessage = SubmitCall | CountCall | QueryCall
CallReply = CallAccepted | CallCounted | CallFound | CallEvents | CallFailed


class PendingCall:
    """A request in an engine process, until its last message. `sequences` is its share of the queue."""

    __slots__ = ("accepted", "message", "queue", "retried", "sent", "sequences")

    def __init__(self, message: CallMessage, sequences: int, left: Callable[["PendingCall"], None]) -> None:
        self.message = message
        self.sequences = sequences
        self.accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue = AnswerQueue(lambda: left(self))
        self.sent = False
        self.retried = False

    def accept(self, found: int | Finding) -> None:
        if not self.accepted.done():
            self.accepted.set_result(found)

    def fail(self, error: ServiceError) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)
        self.queue.fail(error)


class RemoteAnswer:
    def __init__(self, prompt_tokens: int, queue: AnswerQueue) -> None:
        self.prompt_tokens = prompt_tokens
        self._queue = queue

    def events(self) -> AsyncIterator[Event]:
        return self._queue.events()

    async def aclose(self) -> None:
        self._queue.close()
