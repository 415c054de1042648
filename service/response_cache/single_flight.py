"""One generation for all simultaneous requests with the same key."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from logging import getLogger

from service.errors import AnswerLost, EngineFailed, ServiceError, ShuttingDown
from service.events import CompletionBuilder, Done, Event
from service.executor.base import Answer
from service.generation import Completion
from service.response_cache.base import CacheOutcome
from service.response_cache.store import PendingWrite

# A finished answer waits this long for the store, to report whether it was stored.
WRITE_WAIT_SECONDS = 0.02

log = getLogger(__name__)

# Calls `accept` of the flight, then yields its events. Raises the error that refused the request.
Producer = Callable[["Flight"], AsyncGenerator[Event, None]]

# The model's id, and the key of the request.
FlightKey = tuple[str, str]

# Called with a complete flight before its readers see the end. None: the answer is not stored.
Keep = Callable[["Flight"], PendingWrite | None]


async def produce(
    submit: Callable[[], Awaitable[Answer]], flight: "Flight", accepted: Callable[[int], None] | None = None
) -> AsyncGenerator[Event, None]:
    """`accepted` gets the prompt's length in tokens."""
    answer = await submit()
    try:
        if accepted is not None:
            accepted(answer.prompt_tokens)
        flight.accept(answer.prompt_tokens, generation=answer)
        async for event in answer.events():
            yield event
    finally:
        await answer.aclose()


class Flight:
    """A generation in its own task. Every reader reads its events from the start.

    The generation is aborted `linger_seconds` after the last reader left. A lost answer is generated again once, into
    new `events`, for readers that have taken none; the others get `loss`.
    """

    def __init__(self, producer: Producer, keep: Keep, *, linger_seconds: float = 0) -> None:
        self.events: list[Event] = []
        self.completion: Completion | None = None
        self.error: BaseException | None = None
        self.loss: AnswerLost | None = None
        self.prompt_tokens = 0
        self.accepted = False
        self.elsewhere = False
        self.found = False
        self.generation: Answer | None = None
        self.write: PendingWrite | None = None
        self.finished = asyncio.Event()
        self._producer = producer
        self._keep = keep
        self._linger_seconds = linger_seconds
        self._builder = CompletionBuilder()
        self._readers = 0
        self._begun_readers = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._lingering: asyncio.TimerHandle | None = None
        self._ended: Callable[[Flight], None] = lambda _: None
        self._task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        return self.completion is not None or self.error is not None

    @property
    def stored(self) -> bool:
        return self.found or (self.write is not None and self.write.stored)

    def start(self, ended: Callable[["Flight"], None]) -> "asyncio.Task[None]":
        """Calls `ended` before any reader sees the end. The task cleans up."""
        self._ended = ended
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    def accept(
        self, prompt_tokens: int, *, generation: Answer | None = None, elsewhere: bool = False, found: bool = False
    ) -> None:
        """`generation` runs on this server; `elsewhere`: another server generates; `found`: the answer came from the
        store. Later calls change neither `elsewhere` nor the tokens."""
        self.generation, self.found = generation, found
        if not self.accepted:
            self.accepted, self.elsewhere, self.prompt_tokens = True, elsewhere, prompt_tokens
            self._wake()

    def join(self, outcome: CacheOutcome) -> "FlightAnswer":
        self._readers += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        return FlightAnswer(self, outcome)

    async def until_accepted(self) -> None:
        """Raises the error that refused the request."""
        while not self.accepted and not self.over:
            await self.changed()
        if not self.accepted:
            self.raise_error()

    def begin(self) -> None:
        """Each reader calls it with its first event."""
        self._begun_readers += 1

    def leave(self, *, begun: bool) -> None:
        """Each reader calls it once."""
        self._readers -= 1
        self._begun_readers -= begun
        if self._readers or self.over:
            return
        if self._linger_seconds > 0:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._linger_seconds, self.abort, EngineFailed("Nobody waited for it."))
        else:
            self.abort(EngineFailed("Nobody waited for it."))

    def abort(self, error: ServiceError) -> None:
        if not self.over:
            self._end(error=error)
            if self._task is not None:
                self._task.cancel()

    async def changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def raise_error(self) -> None:
        if self.error is not None:
            # All readers raise the same object, whose traceback would grow with each.
            raise self.error.with_traceback(None)

    async def _run(self) -> None:
        try:
            try:
                await self._generate()
            except AnswerLost as loss:
                if self._begun_readers == self._readers:
                    raise
                log.warning("An answer is generated again: %s", loss)
                self.loss, self.events, self._builder = loss, [], CompletionBuilder()
                self._wake()
                await self._generate()
            if not self.over:
                raise EngineFailed("The generation stopped before its end.")
        except asyncio.CancelledError:
            self._end(error=ShuttingDown())
        except Exception as exc:
            if self.over:
                log.exception("a generation did not close")
            self._end(error=exc)

    async def _generate(self) -> None:
        async with aclosing(self._producer(self)) as events:
            async for event in events:
                self._feed(event)

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
        if self._lingering is not None:
            self._lingering.cancel()
        if completion is not None:
            try:
                self.write = self._keep(self)
            except Exception:
                # Readers wait for the complete answer, so a failure to keep it must not reach them.
                log.exception("an answer could not be kept")
        self._ended(self)
        self.finished.set()
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class FlightAnswer:
    age = None

    def __init__(self, flight: Flight, outcome: CacheOutcome) -> None:
        self.outcome: CacheOutcome = outcome
        self._flight = flight
        self._begun = False
        self._left = False

    async def until_accepted(self, patience: float | None) -> None:
        """Waits at most `patience` seconds. Leaves if it raises the error that refused the request."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._flight.until_accepted()
        except BaseException:
            self._leave()
            raise
        if self._flight.elsewhere:
            self.outcome = "collapsed"

    @property
    def stored(self) -> bool:
        """False while the answer is generated, as for the header of a stream."""
        return self._flight.stored

    @property
    def prompt_tokens(self) -> int:
        """0 until the request is accepted."""
        return self._flight.prompt_tokens

    @property
    def read_tokens(self) -> int | None:
        generation = self._flight.generation
        return None if generation is None else generation.read_tokens

    @property
    def written(self) -> int:
        return len(self._flight.events)

    async def events(self) -> AsyncIterator[Event]:
        flight = self._flight
        events, position = flight.events, 0
        try:
            while True:
                while position < len(events):
                    self._begin()
                    yield events[position]
                    position += 1
                if events is not flight.events:
                    if self._begun and flight.loss is not None:
                        raise flight.loss.with_traceback(None)
                    events = flight.events
                elif flight.over:
                    flight.raise_error()
                    return
                else:
                    await flight.changed()
        finally:
            self._leave()

    async def completion(self) -> Completion:
        flight = self._flight
        try:
            await flight.finished.wait()
            flight.raise_error()
            if flight.write is not None:
                await flight.write.wait(WRITE_WAIT_SECONDS)
        finally:
            self._leave()
        if flight.completion is None:
            raise EngineFailed("The generation stopped before its end.")
        return flight.completion

    async def aclose(self) -> None:
        self._leave()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._flight.begin()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._flight.leave(begun=self._begun)


class Flights:
    """Models with the same files have the same keys and different limits, so they share no flights."""

    def __init__(self) -> None:
        self._joinable: dict[FlightKey, Flight] = {}
        self._tasks: dict[asyncio.Task[None], Flight] = {}

    def find(self, key: FlightKey) -> Flight | None:
        return self._joinable.get(key)

    def start(self, flight: Flight, key: FlightKey | None) -> None:
        """Others may join under the key until the flight ends. A key keeps its first flight."""
        task = flight.start(lambda flight: self._forget(flight, key))
        self._tasks[task] = flight
        task.add_done_callback(self._tasks.pop)
        if key is not None:
            self._joinable.setdefault(key, flight)

    async def aclose(self, seconds: float) -> None:
        """Aborts all flights. Waits at most `seconds`, because a store may hang."""
        tasks = dict(self._tasks)
        for flight in tasks.values():
            flight.abort(ShuttingDown())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for task in tasks:
                    await asyncio.wait({task})

    def _forget(self, flight: Flight, key: FlightKey | None) -> None:
        if key is not None and self._joinable.get(key) is flight:
            del self._joinable[key]
