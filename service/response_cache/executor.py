"""`CachingExecutor`: an `Executor` around another that generates nothing twice."""

from cache_backends import CacheBackend
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
from service.response_cache.single_flight import Flight, FlightAnswer
from service.response_cache.statistics import CacheCounters, CacheStatistics
from service.response_cache.store import ResponseStore
from service.settings import Settings


class CachingExecutor:
    """Answers from `backend`, from a generation in flight, or from `inner`, in this order. Both are closed with it.

    Requests are normalised here, once, for the key as for the generation.
    """

    def __init__(self, inner: Executor, backend: CacheBackend, settings: Settings) -> None:
        self.counters = CacheCounters()
        self._inner = inner
        self._policy = settings.cache_policy
        self._linger_seconds = settings.finish_abandoned_seconds
        self._keys = RequestKeys()
        self._store = ResponseStore(backend, self.counters)
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
        """Has the backend open now rather than at the first request: a damaged one is then rebuilt by that time."""
        await self._inner.start()
        await self._store.count_items()

    async def submit(self, request: GenerationRequest, directives: CacheDirectives = NO_DIRECTIVES) -> Answer:
        request = normalize(request)
        if directives.no_store or not may_look_up(request, self._policy):
            self.counters.bypassed += 1
            if directives.only_if_cached:
                raise _not_cached()
            return await self._inner.submit(request)
        key = self._keys.key(self._inner.profile.fingerprint, request)
        if not directives.no_cache:
            return await self._look_up(key, request, directives)
        self.counters.bypassed += 1
        if directives.only_if_cached:
            raise _not_cached()
        return await self._lead(key, request, "bypass")

    async def count_tokens(self, request: GenerationRequest) -> int:
        return await self._inner.count_tokens(normalize(request))

    async def aclose(self) -> None:
        await self._inner.aclose()
        for flight in list(self._flights):
            flight.abort(ShuttingDown("The server is shutting down."))
            await flight.until_ended()
        await self._store.aclose()

    async def _look_up(self, key: str, request: GenerationRequest, directives: CacheDirectives) -> Answer:
        flight = self._joinable.get(key)
        completion = await self._store.get(key, directives.max_age)
        if completion is not None:
            self.counters.hits += 1
            return StoredAnswer(completion)
        if flight is not None and flight.completion is not None:
            # It ended while the store was asked, which therefore did not have it yet.
            self.counters.hits += 1
            self.counters.collapsed += 1
            return StoredAnswer(flight.completion, "collapsed")
        flight = self._joinable.get(key)
        if flight is not None:
            self.counters.hits += 1
            self.counters.collapsed += 1
            return await self._accepted(FlightAnswer(flight, "collapsed"), flight)
        self.counters.misses += 1
        if directives.only_if_cached:
            raise _not_cached()
        return await self._lead(key, request, "miss")

    async def _lead(self, key: str, request: GenerationRequest, outcome: CacheOutcome) -> Answer:
        def ended(flight: Flight) -> None:
            self._flights.discard(flight)
            if self._joinable.get(key) is flight:
                del self._joinable[key]
            if flight.completion is not None and may_store(request, flight.completion, flight.events):
                flight.write = self._store.put(key, flight.completion)
                flight.stored = flight.write is not None and self._store.writes

        flight = Flight(
            lambda: self._inner.submit(request),
            ended,
            with_logprobs=request.logprobs is not None,
            linger_seconds=self._linger_seconds,
        )
        flight.stored = self._store.writes
        self._flights.add(flight)
        self._joinable.setdefault(key, flight)
        return await self._accepted(FlightAnswer(flight, outcome), flight)

    async def _accepted(self, answer: FlightAnswer, flight: Flight) -> Answer:
        try:
            await flight.until_accepted()
        except BaseException:
            await answer.aclose()
            raise
        return answer


def _not_cached() -> NotCached:
    return NotCached("The request said only-if-cached, and no answer to it is stored. Without it, one is generated.")
