"""Single flight between servers that share a store: one of them generates, the others wait for its entry.

Who generates holds a lease in the store for as long as its engine is well, and gives it back when the entry is there.
The others look again and again for either. So a server that dies is waited for no longer than its lease lasts; one
whose answer will not be stored says so; and a store that does not answer leaves everybody to generate alone, as if
there were no others.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from logging import getLogger
from typing import TypeVar

import msgspec

from cache_backends.base import Leases
from service.errors import GenerationTimeout, ServiceError, ShuttingDown
from service.events import Done, Event
from service.executor.base import Answer, CacheOutcome, Executor, StoredAnswer, collect
from service.generation import Completion, GenerationRequest
from service.response_cache.store import ResponseStore

LEASE_SECONDS = 3.0
KEEPS_PER_LEASE = 3
CALL_SECONDS = 0.5
FIRST_PAUSE_SECONDS = 0.01
LAST_PAUSE_SECONDS = 0.2
PAUSE_GROWTH = 1.5

log = getLogger(__name__)

T = TypeVar("T")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of a lease tells those who wait. `prompt_tokens` is known once its engine has accepted the
    request; `queued`: it waits there for a place; `gave_up`: there will be no entry."""

    prompt_tokens: int | None = None
    queued: bool = False
    gave_up: bool = False


class Alone(msgspec.Struct, frozen=True):
    """There is nobody to wait for, and no lease to be had."""


class ReplicaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`places` is how many sequences generate here at the same time. Nobody waits for longer than `wait_seconds`: that
    is when a generation of its own would have timed out."""

    places: int
    wait_seconds: float
    lease_seconds: float


class EngineLoad:
    """What other servers' requests depend on here: whether this server's engine works, and has room. Asking costs
    nothing."""

    def __init__(self, executor: Executor, places: int) -> None:
        self._executor = executor
        self._places = places

    def is_well(self) -> bool:
        return self._executor.status().state in ("loading", "ready")

    def has_place(self) -> bool:
        status = self._executor.status()
        return status.waiting == 0 and status.running < self._places

    def has_queue(self) -> bool:
        status = self._executor.status()
        return status.waiting > 0 and status.running >= self._places


class Replicas:
    """Takes requests like an `Executor`, each with its response-cache key, and has `inner` generate unless another
    server does. Waiting never costs time: a request generates here if the holder's is queued and a place is free."""

    def __init__(self, inner: Executor, store: ResponseStore, leases: Leases, limits: ReplicaLimits) -> None:
        self._inner = inner
        self._store = store
        self._leases = leases
        self._limits = limits
        self._load = EngineLoad(inner, limits.places)

    async def submit(self, key: str, request: GenerationRequest) -> Answer:
        """Returns when this server's engine or another's has accepted the request. Raises what `submit` of `inner`
        raises, and `GenerationTimeout`."""
        return await Attempt(self, key, request).answer(accepted=False)

    async def look(self, key: str) -> "Completion | Lease | Note | Alone":
        """What is to be done about a key: take the answer, generate under the lease, wait, or generate without."""
        if not self._store.writes:
            return Alone()
        lease = Lease(self._leases, key, self._limits.lease_seconds)
        try:
            note = await lease.acquire()
        except Exception as exc:
            log.debug("no lease to be had: %r", exc)
            return Alone()
        # In this order: a lease is given back after its entry was written.
        completion = await self._store.get(key)
        if completion is not None:
            if note is None:
                await lease.end()
            return completion
        if note is None:
            return lease
        return Alone() if note.gave_up or (note.queued and self._load.has_place()) else note

    async def generate(self, lease: "Lease", request: GenerationRequest) -> Answer:
        """Under a lease, which ends with the answer."""
        lease.start_keeping(self._load)
        try:
            answer = await self._inner.submit(request)
        except BaseException as exc:
            await lease.end(gave_up=isinstance(exc, ServiceError))
            raise
        lease.accepted(answer.prompt_tokens)
        return LeasedAnswer(answer, lease, self._store, with_logprobs=request.logprobs is not None)

    async def generate_alone(self, request: GenerationRequest) -> Answer:
        return await self._inner.submit(request)

    @property
    def wait_seconds(self) -> float:
        return self._limits.wait_seconds


class Lease:
    """One holder's lease of a key."""

    def __init__(self, leases: Leases, key: str, seconds: float) -> None:
        self.key = key
        self._leases = leases
        self._seconds = seconds
        self._holder = secrets.token_hex(8)
        self._note = Note()
        self._begun = False
        self._over = False
        self._told = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def acquire(self) -> Note | None:
        """None when it is ours now; else what its holder says. Raises whatever the store raises."""
        theirs = await _within(self._leases.acquire(self.key, self._holder, self._text(), ttl=self._seconds))
        return None if theirs is None else _read_note(theirs)

    def start_keeping(self, load: EngineLoad) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep(load))

    def accepted(self, prompt_tokens: int) -> None:
        """Tells those who wait, at once."""
        self._note = Note(prompt_tokens=prompt_tokens)
        self._told.set()

    def begun(self) -> None:
        """There is something of the answer: it waits for no place."""
        if not self._begun:
            self._begun = True
            self._told.set()

    async def end(self, *, gave_up: bool = False) -> None:
        """Gives it back; or leaves it, until it ends, to tell that there is nothing to wait for."""
        self._over = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        try:
            if gave_up:
                self._note = Note(gave_up=True)
                await _within(self._leases.keep(self.key, self._holder, self._text(), ttl=self._seconds))
            else:
                # Not cut short: the entry may be on its way to the tier that the others read.
                await self._leases.release(self.key, self._holder)
        except Exception as exc:
            log.debug("a lease was not given back, and will end by itself: %r", exc)

    async def _keep(self, load: EngineLoad) -> None:
        held = True
        while held and not self._over:
            self._told.clear()
            self._note = msgspec.structs.replace(self._note, queued=not self._begun and load.has_queue())
            if load.is_well():
                try:
                    held = await _within(self._leases.keep(self.key, self._holder, self._text(), ttl=self._seconds))
                except Exception as exc:
                    log.debug("a lease was not kept: %r", exc)
            # Not wait_for: when it is cancelled as the event is set, it forgets that it was cancelled (Python 3.11).
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds / KEEPS_PER_LEASE):
                    await self._told.wait()

    def _text(self) -> str:
        return msgspec.json.encode(self._note).decode()


class Attempt:
    """One request's looks at the store, further and further apart, until there is an answer or its time is up."""

    def __init__(self, replicas: Replicas, key: str, request: GenerationRequest) -> None:
        self.request = request
        self._replicas = replicas
        self._key = key
        self._pause = FIRST_PAUSE_SECONDS
        self._deadline = time.monotonic() + replicas.wait_seconds

    async def answer(self, *, accepted: bool) -> Answer:
        """With `accepted`, not before there is something to read; without, as soon as another server has accepted the
        same request: then it is right here too, and its stream may open."""
        while True:
            match await self._replicas.look(self._key):
                case Completion() as completion:
                    answer = StoredAnswer(completion, "collapsed")
                    answer.stored = True
                    return answer
                case Lease() as lease:
                    return await self._replicas.generate(lease, self.request)
                case Alone():
                    return await self._replicas.generate_alone(self.request)
                case Note(prompt_tokens=int(prompt_tokens)) if not accepted:
                    return JoinedAnswer(self, prompt_tokens)
            await self._wait()

    async def _wait(self) -> None:
        if time.monotonic() >= self._deadline:
            raise GenerationTimeout(
                "Another server generates this answer and has not ended in time. Ask again, or raise "
                "requestTimeoutSeconds."
            )
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * PAUSE_GROWTH, LAST_PAUSE_SECONDS)


class LeasedAnswer:
    """A generation of this server that others wait for. Must be closed: the lease ends then."""

    outcome: CacheOutcome = "miss"
    stored = False

    def __init__(self, answer: Answer, lease: Lease, store: ResponseStore, *, with_logprobs: bool) -> None:
        self.prompt_tokens = answer.prompt_tokens
        self._with_logprobs = with_logprobs
        self._answer = answer
        self._lease = lease
        self._store = store
        self._finished = False
        self._failed = False

    async def events(self) -> AsyncIterator[Event]:
        try:
            async for event in self._answer.events():
                self._lease.begun()
                self._finished = isinstance(event, Done)
                yield event
        except ServiceError as exc:
            self._failed = not isinstance(exc, ShuttingDown)
            raise

    async def completion(self) -> Completion:
        return await collect(self.events(), with_logprobs=self._with_logprobs)

    async def aclose(self) -> None:
        """Waits until the entry is written, if there is one."""
        try:
            await self._answer.aclose()
        finally:
            unstored = self._finished and not await self._store.written(self._lease.key)
            await self._lease.end(gave_up=self._failed or unstored)


class JoinedAnswer:
    """The entry that another server is about to write, or what is generated here should it not."""

    outcome: CacheOutcome = "collapsed"

    def __init__(self, attempt: Attempt, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self._attempt = attempt
        self._answer: Answer | None = None

    @property
    def stored(self) -> bool:
        return self._answer is not None and self._answer.stored

    async def events(self) -> AsyncIterator[Event]:
        self._answer = await self._attempt.answer(accepted=True)
        async for event in self._answer.events():
            yield event

    async def completion(self) -> Completion:
        return await collect(self.events(), with_logprobs=self._attempt.request.logprobs is not None)

    async def aclose(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()


async def _within(call: Awaitable[T]) -> T:
    async with asyncio.timeout(CALL_SECONDS):
        return await call


def _read_note(text: str) -> Note:
    try:
        return msgspec.json.decode(text, type=Note)
    except (msgspec.MsgspecError, ValueError):
        # Of another version of this service: there is no telling what it says.
        return Note(gave_up=True)
