"""One generation for everybody who asks the same at the same time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from logging import getLogger

from service.errors import EngineFailed, ServiceError, ShuttingDown
from service.events import CompletionBuilder, Done, Event
from service.executor.base import Answer, CacheOutcome
from service.generation import Completion

# How long a finished answer waits for the store, so that it can say whether it was stored.
SETTLE_SECONDS = 0.02

log = getLogger(__name__)

Submit = Callable[[], Awaitable[Answer]]


class Flight:
    """A generation in a task of its own, and what it has produced so far, for any number of readers.

    Every reader goes through `events` at its own pace: a late one begins at the start, a slow one holds nobody back,
    and what is held is no more than the answer. When the last reader leaves, the generation is aborted after
    `linger_seconds`. `ended` is called once, before any reader learns of the end.
    """

    def __init__(
        self, submit: Submit, ended: Callable[["Flight"], None], *, with_logprobs: bool, linger_seconds: float
    ) -> None:
        self.events: list[Event] = []
        self.completion: Completion | None = None
        self.error: BaseException | None = None
        self.answer: Answer | None = None
        self.readers = 0
        # Whether the answer is or will be stored, and the write that decides it.
        self.stored = True
        self.write: asyncio.Task[bool] | None = None
        self._submit = submit
        self._ended = ended
        self._builder = CompletionBuilder(with_logprobs=with_logprobs)
        self._linger_seconds = linger_seconds
        self._waiters: list[asyncio.Future[None]] = []
        self._lingering: asyncio.TimerHandle | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def accepted(self) -> bool:
        return self.answer is not None

    @property
    def prompt_tokens(self) -> int:
        return 0 if self.answer is None else self.answer.prompt_tokens

    @property
    def over(self) -> bool:
        return self.completion is not None or self.error is not None

    def join(self) -> None:
        self.readers += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def leave(self) -> None:
        self.readers -= 1
        if self.readers or self.over:
            return
        if self._linger_seconds > 0:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_seconds, self.abort, EngineFailed("Nobody waited for it."))
        else:
            self.abort(EngineFailed("Nobody waited for it."))

    def abort(self, error: ServiceError) -> None:
        """Ends the generation; whoever still reads gets `error`."""
        if not self.over:
            self._end(error=error)
            self._task.cancel()

    async def until_ended(self) -> None:
        """Waits until the task of the generation has ended, its cleaning up included."""
        await asyncio.wait({self._task})

    def when_ended(self, call: Callable[["Flight"], object]) -> None:
        """Calls it then."""
        self._task.add_done_callback(lambda _: call(self))

    async def until_accepted(self) -> None:
        """Raises what `submit` raised."""
        while not self.accepted and not self.over:
            await self.changed()
        if not self.accepted:
            self.raise_error()

    async def changed(self) -> None:
        """Returns when there is more to read, or nothing more to wait for."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def raise_error(self) -> None:
        """Every reader raises the same error; the traceback would grow by each."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    async def _run(self) -> None:
        try:
            answer = self.answer = await self._submit()
            self._wake()
            async for event in answer.events():
                self._feed(event)
            if not self.over:
                raise EngineFailed("The generation stopped before its end.")
        except asyncio.CancelledError:
            self._end(error=ShuttingDown("The server is shutting down."))
        except Exception as exc:
            self._end(error=exc)
        finally:
            if self.answer is not None:
                await self._close(self.answer)

    def _feed(self, event: Event) -> None:
        self._builder.feed(event)
        self.events.append(event)
        if isinstance(event, Done):
            self._end(completion=self._builder.build())
        else:
            self._wake()

    def _end(self, *, completion: Completion | None = None, error: BaseException | None = None) -> None:
        if self.over:
            return
        self.completion, self.error = completion, error
        self.stored = False
        if self._lingering is not None:
            self._lingering.cancel()
        try:
            self._ended(self)
        except Exception:
            # Whatever is wrong with keeping it: the answer is there, and its readers wait for it.
            log.exception("an answer could not be kept")
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _close(self, answer: Answer) -> None:
        try:
            await answer.aclose()
        except Exception:
            log.exception("a generation did not close")


class FlightAnswer:
    """One reader's share of a `Flight`: the `Answer` of its leader and of each follower."""

    def __init__(self, flight: Flight, outcome: CacheOutcome) -> None:
        self.outcome: CacheOutcome = outcome
        self._flight = flight
        self._left = False
        flight.join()

    @property
    def stored(self) -> bool:
        write = self._flight.write
        return write.result() if write is not None and write.done() and not write.cancelled() else self._flight.stored

    @property
    def prompt_tokens(self) -> int:
        return self._flight.prompt_tokens

    async def events(self) -> AsyncIterator[Event]:
        flight = self._flight
        position = 0
        try:
            while True:
                while position < len(flight.events):
                    yield flight.events[position]
                    position += 1
                if flight.over:
                    flight.raise_error()
                    return
                await flight.changed()
        finally:
            self._leave()

    async def completion(self) -> Completion:
        flight = self._flight
        try:
            while not flight.over:
                await flight.changed()
            flight.raise_error()
            if flight.write is not None:
                await asyncio.wait({flight.write}, timeout=SETTLE_SECONDS)
        finally:
            self._leave()
        if flight.completion is None:
            raise EngineFailed("The generation stopped before its end.")
        return flight.completion

    async def aclose(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._flight.leave()
