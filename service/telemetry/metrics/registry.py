"""`GET /metrics`: what Prometheus is told."""

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from service.executor.base import Executor
from service.response_cache.statistics import CacheCounters, CacheStatistics
from service.telemetry.metrics.readings import Readings
from service.telemetry.metrics.requests import RequestMetrics


class Metrics:
    """One app's metrics, in a registry of their own. `observe` is called with every finished request.

    A request is labelled with the status that its client saw ("none" if it left before), with what the response cache
    did ("none" if it was refused before), and with the error that ended it ("" if none did).
    """

    def __init__(
        self,
        executor: Executor,
        counters: CacheCounters,
        statistics: Callable[[], Awaitable[CacheStatistics]],
    ) -> None:
        self._statistics = statistics
        self._registry = registry = CollectorRegistry()
        requests = RequestMetrics(executor.profile.id)
        self.observe = requests.observe
        registry.register(requests)
        self._items = Gauge(
            "anyclaude_response_cache_items", "Answers that the response cache keeps.", registry=registry
        )
        registry.register(Readings(executor, counters))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics for those whose `Accept` asks for it."""
        self._items.set((await self._statistics()).cached_items)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
