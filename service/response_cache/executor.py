"""`CachingExecutor`: an `Executor` around another that generates nothing twice."""

import asyncio
from contextlib import suppress

from cache_backends import CacheBackend
from cache_backends.base import HasLeases
from service.errors import NotCached, ShuttingDown
from service.executor.base import (
    NO_DIRECTIVES,
    Answer,
    CacheDirectives,
    CacheOutcome,
    Executor,
    ExecutorStatus,
    ModelProfile,
    StoredAnswer,
)
from service.generation import GenerationRequest
from service.normalize import normalize
from service.response_cache.key import RequestKeys
from service.response_cache.policy import may_look_up, may_store
from service.response_cache.replicas import LEASE_SECONDS, ReplicaLimits, Replicas
from service.response_cache.single_flight import Flight, FlightAnswer, Submit
from service.response_cache.statistics import CacheCounters, CacheStatistics
from service.response_cache.store import CLOSE_SECONDS, ResponseStore
from service.settings import Settings


class CachingExecutor:
    """Answers from `backend`, from a generation in flight, or from `inner`, in this order. Both are closed with it.

    Requests are normalised here, once, for the key as for the generation.
    """

    def __init__(
        self, inner: Executor, backend: CacheBackend, settings: Settings, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self.counters = CacheCounters()
        self._inner = inner
        self._policy = settings.cache_policy
        self._linger_seconds = settings.finish_abandoned_seconds
        self._keys = RequestKeys()
        self._store = ResponseStore(backend, self.counters)
        # With other servers, where any can see what this one stores.
        self._replicas: Replicas | None = None
        if isinstance(backend, HasLeases) and backend.leases is not None:
            limits = ReplicaLimits(
                places=settings.max_concurrency,
                wait_seconds=settings.request_timeout_seconds,
                lease_seconds=lease_seconds,
            )
            self._replicas = Replicas(inner, self._store, backend.leases, limits)
        # The generations in flight that others may join, by key, and all of them.
        self._joinable: dict[str, Flight] = {}
        self._flights: set[Flight] = set()

    @property
    def profile(self) -> ModelProfile:
        return self._inner.profile

    def status(self) -> ExecutorStatus:
        return self._inner.status()

    async def statistics(self) -> CacheStatistics:
        return self.counters.statistics(await self._store.count_items())

    async def start(self) -> None:
        """Opens the backend now, so a damaged one is rebuilt before the first request."""
        await self._inner.start()
        await self._store.count_items()

    async def submit(self, request: GenerationRequest, directives: CacheDirectives = NO_DIRECTIVES) -> Answer:
        answer = await self._submit(normalize(request), directives)
        self.counters.count(answer.outcome)
        return answer

    async def count_tokens(self, request: GenerationRequest) -> int:
        return await self._inner.count_tokens(normalize(request))

    async def aclose(self) -> None:
        await self._inner.aclose()
        flights = list(self._flights)
        for flight in flights:
            flight.abort(ShuttingDown("The server is shutting down."))
        with suppress(TimeoutError):
            # Those that are over already may wait for a store that hangs.
            async with asyncio.timeout(CLOSE_SECONDS):
                for flight in flights:
                    await flight.until_ended()
        await self._store.aclose()

    async def _submit(self, request: GenerationRequest, directives: CacheDirectives) -> Answer:
        if directives.no_store or not may_look_up(request, self._policy):
            if directives.only_if_cached:
                raise _not_cached()
            return await self._inner.submit(request)
        key = self._keys.key(self._inner.profile.fingerprint, request)
        if not directives.no_cache:
            return await self._look_up(key, request, directives)
        if directives.only_if_cached:
            raise _not_cached()
        return await self._lead(key, request, "bypass")

    async def _look_up(self, key: str, request: GenerationRequest, directives: CacheDirectives) -> Answer:
        flight = self._joinable.get(key)
        completion = await self._store.get(key, directives.max_age)
        if completion is not None:
            return StoredAnswer(completion)
        if flight is not None and flight.completion is not None:
            # It ended while the store was asked, which therefore did not have it yet.
            return StoredAnswer(flight.completion, "collapsed")
        flight = self._joinable.get(key)
        if flight is not None:
            return await self._accepted(FlightAnswer(flight, "collapsed"), flight)
        if directives.only_if_cached:
            raise _not_cached()
        replicas = self._replicas
        if replicas is None or directives.max_age is not None:
            return await self._lead(key, request, "miss")
        # The readers of this server may all turn out to follow another server's.
        return await self._lead(key, request, "miss", lambda: replicas.submit(key, request))

    async def _lead(
        self, key: str, request: GenerationRequest, outcome: CacheOutcome, submit: Submit | None = None
    ) -> Answer:
        def ended(flight: Flight) -> None:
            if self._joinable.get(key) is flight:
                del self._joinable[key]
            if flight.answer is not None and flight.answer.stored:
                flight.stored = True
            elif flight.completion is not None and may_store(request, flight.completion, flight.events):
                flight.write = self._store.put(key, flight.completion)
                flight.stored = flight.write is not None and self._store.writes

        flight = Flight(
            submit or (lambda: self._inner.submit(request)),
            ended,
            with_logprobs=request.logprobs is not None,
            linger_seconds=self._linger_seconds,
        )
        flight.stored = self._store.writes
        self._flights.add(flight)
        flight.when_ended(self._flights.discard)
        self._joinable.setdefault(key, flight)
        return await self._accepted(FlightAnswer(flight, outcome), flight)

    async def _accepted(self, answer: FlightAnswer, flight: Flight) -> Answer:
        try:
            await flight.until_accepted()
        except BaseException:
            await answer.aclose()
            raise
        if flight.answer is not None and flight.answer.outcome == "collapsed":
            answer.outcome = "collapsed"
        return answer


def _not_cached() -> NotCached:
    return NotCached(
        "The request said only-if-cached, and no answer to it is stored. "
        "Send it without only-if-cached to generate one."
    )
