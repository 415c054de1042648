"""All metrics of one app, as Prometheus reads them."""

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from service.executor.base import Executor
from service.response_cache.statistics import CacheNumbers
from service.telemetry.metrics.readings import Readings
from service.telemetry.metrics.requests import RequestMetrics


class Metrics:
    """`observe` is to be called with every request that has ended.

    A request's labels are the status that its client saw ("none" if it left before), the response cache's outcome
    ("none" if it was refused before), and the error that ended it ("" if none did).
    """

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
        """The exposition and its content type: OpenMetrics if `accept` asks for it."""
        cache = await self._cache()
        # From here on nothing waits, so all numbers are of one moment.
        self._readings.take(self._executor.profile.id, self._executor.status(), cache)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
