"""What the endpoints share: one of these for each app, made by `create_app`."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from service.http.body import BodyReader
from service.response_cache.executor import CachingExecutor
from service.response_cache.statistics import CacheCounters, CacheStatistics
from service.settings import Settings
from service.telemetry.request_log import Observer, RequestRecord


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceContext:
    """`stopping` is set when the server shuts down: streams that would go on for ever end then."""

    settings: Settings
    executor: CachingExecutor
    bodies: BodyReader
    cache_counters: CacheCounters
    cache_statistics: Callable[[], Awaitable[CacheStatistics]]
    observers: tuple[Observer, ...] = ()
    stopping: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def observe(self, record: RequestRecord) -> None:
        for observer in self.observers:
            observer(record)

    def is_alive(self) -> bool:
        """Whether waiting makes sense: the engine loads or makes progress."""
        return self.executor.status().state in ("loading", "ready")
