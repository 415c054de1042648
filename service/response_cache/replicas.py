"""Single flight between servers that share a store. One generates under a lease; the others poll for its entry, and
take over when a dead server's lease expires. If the store fails, every server generates alone."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from functools import partial
from logging import getLogger
from typing import TypeVar

import msgspec

from cache_backends.base import Leases
from service.errors import GenerationTimeout, ServiceError, ShuttingDown
from service.events import Done, Event
from service.executor.base import Executor, event_stream
from service.generation import GenerationRequest
from service.response_cache.base import StoreTimes
from service.response_cache.record import AnswerRecord
from service.response_cache.single_flight import Flight, produce
from service.response_cache.store import ResponseStore

KEEPS_PER_LEASE = 3
FIRST_PAUSE_SECONDS = 0.01
LAST_PAUSE_SECONDS = 0.2
PAUSE_GROWTH = 1.5

log = getLogger(__name__)

T = TypeVar("T")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The lease holder's note. `prompt_tokens`: its engine has accepted the request; `queued`: it waits for a place
    there; `gave_up`: there will be no entry."""

    prompt_tokens: int | None = None
    queued: bool = False
    gave_up: bool = False


class Alone(msgspec.Struct, frozen=True): ...


class ReplicaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`places`: sequences that generate here together."""

    places: int
    wait_seconds: float
    times: StoreTimes


class EngineLoad:
    def __init__(self, executor: Executor, places: int) -> None:
        self._executor = executor
        self._places = places

    def makes_progress(self) -> bool:
        return self._executor.status().makes_progress

    def has_place(self) -> bool:
        status = self._executor.status()
        return status.waiting == 0 and status.running < self._places

    def has_queue(self) -> bool:
        status = self._executor.status()
        return status.waiting > 0 and status.running >= self._places


class Replicas:
    """Generates with `inner` unless another server generates the same, without waiting for a place there."""

    def __init__(self, inner: Executor, store: ResponseStore, leases: Leases, limits: ReplicaLimits) -> None:
        self._inner = inner
        self._store = store
        self._leases = leases
        self._limits = limits
        self._load = EngineLoad(inner, limits.places)

    def around(self, inner: Executor) -> "Replicas":
        return Replicas(inner, self._store, self._leases, self._limits)

    async def generate(self, key: str, request: GenerationRequest, flight: Flight) -> AsyncGenerator[Event, None]:
        """A `Producer`. Polls at growing intervals. Accepts the request once another server's engine has. Raises
        `GenerationTimeout` and the errors of `submit`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.wait_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            match await self._look(key):
                case AnswerRecord(_, _, completion):
                    flight.accept(completion.usage.prompt_tokens, elsewhere=True, found=True)
                    events = event_stream(completion)
                    break
                case Lease() as lease:
                    events = self._generate_under(lease, request, flight)
                    break
                case Alone():
                    events = produce(partial(self._inner.submit, request), flight)
                    break
                case Note(prompt_tokens=int(prompt_tokens)):
                    flight.accept(prompt_tokens, elsewhere=True)
            if loop.time() >= deadline:
                raise GenerationTimeout(
                    "Another server generates this answer and has not ended in time. Ask again, or raise "
                    "requestTimeoutSeconds."
                )
            await asyncio.sleep(pause)
            pause = min(pause * PAUSE_GROWTH, LAST_PAUSE_SECONDS)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _look(self, key: str) -> "AnswerRecord | Lease | Note | Alone":
        if not self._store.writes:
            return Alone()
        lease = Lease(self._leases, key, self._limits.times)
        try:
            try:
                note = await lease.acquire()
            except Exception as exc:
                log.debug("no lease: %r", exc)
                return Alone()
            # The order matters: a lease is released after its entry was written.
            record = await self._store.get(key)
        except asyncio.CancelledError:
            # The store may have granted the lease, and the next server would wait until it ends.
            await lease.end()
            raise
        if record is not None:
            if note is None:
                await lease.end()
            return record
        if note is None:
            return lease
        return Alone() if note.gave_up or (note.queued and self._load.has_place()) else note

    async def _generate_under(
        self, lease: "Lease", request: GenerationRequest, flight: Flight
    ) -> AsyncGenerator[Event, None]:
        finished = failed = False
        lease.start_keeping(self._load)
        try:
            async with aclosing(produce(partial(self._inner.submit, request), flight, lease.accepted)) as events:
                async for event in events:
                    lease.begun()
                    finished = isinstance(event, Done)
                    yield event
        except ServiceError as exc:
            failed = not isinstance(exc, ShuttingDown)
            raise
        finally:
            unstored = finished and not await self._store.written(lease.key)
            await lease.end(gave_up=failed or unstored)


class Lease:
    def __init__(self, leases: Leases, key: str, times: StoreTimes) -> None:
        self.key = key
        self._leases = leases
        self._seconds = times.lease
        self._call_seconds = times.lease_call
        self._holder = secrets.token_hex(8)
        self._note = Note()
        self._begun = False
        self._over = False
        self._told = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def acquire(self) -> Note | None:
        """Returns None if the lease is ours now, else the holder's note. Raises the store's errors."""
        theirs = await self._within(self._leases.acquire(self.key, self._holder, self._text(), ttl=self._seconds))
        return None if theirs is None else read_note(theirs)

    def start_keeping(self, load: EngineLoad) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep(load))

    def accepted(self, prompt_tokens: int) -> None:
        self._note = Note(prompt_tokens=prompt_tokens)
        self._told.set()

    def begun(self) -> None:
        # The request no longer waits for a place.
        if not self._begun:
            self._begun = True
            self._told.set()

    async def end(self, *, gave_up: bool = False) -> None:
        """With `gave_up`, the lease expires, and its note stops others from waiting."""
        self._over = True
        if self._keeping is not None:
            # A call that is cancelled on its way might reach the store after the last note, and replace it.
            self._told.set()
            await asyncio.wait({self._keeping})
        try:
            if gave_up:
                self._note = Note(gave_up=True)
                await self._within(self._leases.keep(self.key, self._holder, self._text(), ttl=self._seconds))
            else:
                await self._within(self._leases.release(self.key, self._holder))
        except Exception as exc:
            log.debug("a lease was not released, and will expire: %r", exc)

    async def _keep(self, load: EngineLoad) -> None:
        held = True
        while held and not self._over:
            self._told.clear()
            self._note = msgspec.structs.replace(self._note, queued=not self._begun and load.has_queue())
            if load.makes_progress():
                try:
                    held = await self._within(
                        self._leases.keep(self.key, self._holder, self._text(), ttl=self._seconds)
                    )
                except Exception as exc:
                    log.debug("a lease was not kept: %r", exc)
            # wait_for loses a cancellation that arrives together with the event (Python 3.11).
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds / KEEPS_PER_LEASE):
                    await self._told.wait()

    def _text(self) -> str:
        return msgspec.json.encode(self._note).decode()

    async def _within(self, call: Awaitable[T]) -> T:
        async with asyncio.timeout(self._call_seconds):
            return await call


def read_note(text: str) -> Note:
    try:
        return msgspec.json.decode(text, type=Note)
    except (msgspec.MsgspecError, ValueError):
        # The note comes from another version of this service.
        return Note(gave_up=True)
