from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from service.executor.base import Executor
from service.response_cache.statistics import CacheNumbers
from service.telemetry.metrics.readings import Readings
from service.telemetry.metrics.requests import RequestMetrics


class Metrics:
    """Pass every finished request to `observe`. Its labels are status ("none" if the client left early), outcome
    ("none" if it was refused before the response cache) and error ("" if none)."""

    def __init__(self, executor: Executor, cache: Callable[[], Awaitable[CacheNumbers]]) -> None:
        self._executor = executor
        self._cache = cache
        self._readings = Readings()
        self._registry = CollectorRegistry()
        requests = RequestMetrics(executor.profile.id)
        self.observe = requests.observe
        self._registry.register(requests)
        self._registry.register(self._readings)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Returns body and content type: OpenMetrics if `accept` names it."""
        cache = await self._cache()
        # Nothing is awaited from here on, so all numbers belong to one moment.
        self._readings.take(self._executor.profile.id, self._executor.status(), cache)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
