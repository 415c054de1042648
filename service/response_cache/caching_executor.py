import asyncio
from copy import copy
from functools import partial

import msgspec

from cache_backends import CacheBackend
from cache_backends.base import leases_of
from service.errors import NotCached
from service.executor.base import Executor, ExecutorStatus
from service.generation import GenerationRequest
from service.normalize import normalize
from service.profile import ModelProfile
from service.queries import Finding, Query
from service.response_cache.base import (
    NO_DIRECTIVES,
    STORE_TIMES,
    CachedAnswer,
    CacheDirectives,
    CacheOutcome,
    Recorder,
    StoredAnswer,
    StoreTimes,
)
from service.response_cache.key import RequestKeys
from service.response_cache.policy import may_look_up, may_store
from service.response_cache.questions import Questions
from service.response_cache.replicas import ReplicaLimits, Replicas
from service.response_cache.single_flight import Flight, FlightAnswer, Flights, Producer, produce
from service.response_cache.statistics import CacheCounters, CacheNumbers, KeyHits
from service.response_cache.store import CLOSE_SECONDS, PendingWrite, ResponseStore
from service.response_cache.upkeep import Upkeep
from service.settings import Settings


class CachingExecutor:
    """Answers from `backend`, a generation in flight, or `inner`, in this order. Closes all of them. Normalizes
    requests. `recorder` gets every count and every complete answer, except for `no-store`."""

    def __init__(
        self,
        inner: Executor,
        backend: CacheBackend,
        settings: Settings,
        *,
        recorder: Recorder | None = None,
        times: StoreTimes = STORE_TIMES,
    ) -> None:
        self.counters = CacheCounters()
        self._inner = inner
        self._policy = settings.cache_policy
        self._recorder = recorder
        self._linger_seconds = settings.finish_abandoned_seconds
        self._keys = RequestKeys()
        self._store = ResponseStore(backend, self.counters, lookup_seconds=times.lookup)
        self._hits = KeyHits()
        self._questions = Questions(kept=settings.debug_level >= 2)
        self.upkeep = Upkeep(backend, self._store, self._hits, self._questions)
        # Single flight with other servers, if the backend is shared with them.
        self._replicas: Replicas | None = None
        leases = leases_of(backend)
        if leases is not None:
            limits = ReplicaLimits(
                places=settings.most_running,
                wait_seconds=settings.request_timeout_seconds,
                times=times,
            )
            self._replicas = Replicas(inner, self._store, leases, limits)
        self._flights = Flights()

    @property
    def profile(self) -> ModelProfile:
        return self._inner.profile

    def status(self) -> ExecutorStatus:
        return self._inner.status()

    async def statistics(self) -> CacheNumbers:
        return self.counters.read(await self._store.count_items())

    def around(self, inner: Executor) -> "CachingExecutor":
        """Shares this response cache with another executor. Start and close only the original."""
        other = copy(self)
        other._inner = inner  # noqa: SLF001 - of the same class
        if self._replicas is not None:
            other._replicas = self._replicas.around(inner)  # noqa: SLF001
        return other

    async def start(self) -> None:
        await self._inner.start()
        await self.open()

    async def open(self) -> None:
        """A damaged backend is rebuilt now, before the first request."""
        await self._store.count_items()

    async def submit(
        self,
        request: GenerationRequest,
        directives: CacheDirectives = NO_DIRECTIVES,
        *,
        patience: float | None = None,
    ) -> CachedAnswer:
        """Returns within `patience` seconds. If the request is refused later, reading the answer raises the error."""
        request = normalize(request)
        answer: StoredAnswer | FlightAnswer
        if await self._has_key(directives, patience):
            answer = await self._accepted(request, directives, patience)
        else:
            # Its stream opens before anyone knows whether it is a hit. It counts as a miss.
            producer = partial(produce, partial(self._identify_and_submit, request, directives))
            answer = self._lead(request, "miss", None, producer, stores=False)
        self.counters.count(answer.outcome)
        return answer

    async def count_tokens(self, request: GenerationRequest, *, recorded: bool = True) -> int:
        request = normalize(request)
        if not recorded or self._recorder is None:
            return await self._inner.count_tokens(request)
        await self._inner.identify()
        fingerprint = self.profile.fingerprint
        count = await self._inner.count_tokens(request)
        # A process that started meanwhile may have counted with other files.
        if fingerprint and self.profile.fingerprint == fingerprint:
            self._recorder.record_count(self._key(request), count)
        return count

    async def ask(self, query: Query) -> Finding:
        return await self._inner.ask(query)

    async def aclose(self) -> None:
        await self._inner.aclose()
        await self._flights.aclose(CLOSE_SECONDS)
        await self._store.aclose()
        if self._recorder is not None:
            self._recorder.close()

    async def _has_key(self, directives: CacheDirectives, patience: float | None) -> bool:
        """Waits at most `patience` seconds for the model's fingerprint, a part of every key."""
        if self.profile.fingerprint or directives.no_store:
            return True
        try:
            async with asyncio.timeout(patience):
                await self._inner.identify()
        except TimeoutError:
            return False
        return True

    async def _identify_and_submit(
        self, request: GenerationRequest, directives: CacheDirectives
    ) -> StoredAnswer | FlightAnswer:
        await self._inner.identify()
        return await self._accepted(request, directives, None)

    async def _accepted(
        self, request: GenerationRequest, directives: CacheDirectives, patience: float | None
    ) -> StoredAnswer | FlightAnswer:
        answer = await self._submit(request, directives)
        if isinstance(answer, FlightAnswer):
            await answer.until_accepted(patience)
        return answer

    async def _submit(self, request: GenerationRequest, directives: CacheDirectives) -> StoredAnswer | FlightAnswer:
        cached = not (directives.no_store or directives.bypass) and may_look_up(request, self._policy)
        if directives.only_if_cached and (directives.no_cache or not cached):
            raise _not_cached()
        if directives.no_store:
            request = msgspec.structs.replace(request, no_store=True)
            return self._lead(request, "bypass", None, stores=False)
        key = self._key(request)
        self._questions.see(key, request)
        if directives.no_cache or not cached:
            return self._lead(request, "bypass", key, stores=cached)
        return await self._look_up(key, request, directives)

    async def _look_up(
        self, key: str, request: GenerationRequest, directives: CacheDirectives
    ) -> StoredAnswer | FlightAnswer:
        fingerprint, flight_key = self.profile.fingerprint, (self.profile.id, key)
        flight = self._flights.find(flight_key)
        record = await self._store.get(key, directives.max_age)
        if record is not None:
            if self._recorder is not None:
                self._recorder.record_answer(key, record.completion)
            self._hits.count(key)
            return StoredAnswer(record.completion, age=self._store.age(record))
        if flight is not None and flight.completion is not None:
            # The flight ended during the lookup, which therefore missed its answer.
            return StoredAnswer(flight.completion, "collapsed")
        flight = self._flights.find(flight_key)
        if flight is not None:
            return flight.join("collapsed")
        if directives.only_if_cached:
            raise _not_cached()
        if self.profile.fingerprint != fingerprint:
            return self._lead(request, "miss", None, stores=False)
        replicas = self._replicas
        if replicas is None or directives.max_age is not None:
            return self._lead(request, "miss", key)
        # This server's readers may all turn out to follow another server's generation.
        return self._lead(request, "miss", key, partial(replicas.generate, key, request))

    def _lead(
        self,
        request: GenerationRequest,
        outcome: CacheOutcome,
        key: str | None,
        producer: Producer | None = None,
        *,
        stores: bool = True,
    ) -> FlightAnswer:
        """Others may join only with `stores`, and only then the flight lingers without readers."""
        fingerprint = self.profile.fingerprint

        def keep(flight: Flight) -> PendingWrite | None:
            if key is None or flight.completion is None:
                return None
            if self.profile.fingerprint != fingerprint:  # a process that started later has generated it
                return None
            if self._recorder is not None:
                self._recorder.record_answer(key, flight.completion)
            if stores and not flight.found and may_store(request, flight.completion, flight.events):
                return self._store.put(key, flight.completion)
            return None

        flight = Flight(
            producer or partial(produce, partial(self._inner.submit, request)),
            keep,
            linger_seconds=self._linger_seconds if stores else 0,
        )
        self._flights.start(flight, (self.profile.id, key) if stores and key is not None else None)
        return flight.join(outcome)

    def _key(self, request: GenerationRequest) -> str:
        return self._keys.key(self._inner.profile.fingerprint, request)


def _not_cached() -> NotCached:
    return NotCached(
        "The request said only-if-cached, and no answer to it is stored. "
        "Send it without only-if-cached to generate one."
    )
