import asyncio
import dataclasses

from service.http.body import BodyReader
from service.model_registry.registry import ModelRegistry
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.documents import DocumentStore
from service.settings import Settings
from service.telemetry.activity import Activity
from service.telemetry.log_ring import LogRing
from service.telemetry.prompt_history import PromptHistory
from service.telemetry.request_log import Observer, RequestRecord


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceContext:
    """Shared by the endpoints of one app. `stopping` ends endless streams at shutdown."""

    settings: Settings
    registry: ModelRegistry
    bodies: BodyReader
    documents: DocumentStore
    activity: Activity
    prompts: PromptHistory = dataclasses.field(default_factory=PromptHistory)
    observers: tuple[Observer, ...] = ()
    log_ring: LogRing = dataclasses.field(default_factory=LogRing)
    stopping: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def observe(self, record: RequestRecord) -> None:
        """Call it once at the end of each request."""
        for observer in self.observers:
            observer(record)

    @property
    def executor(self) -> CachingExecutor:
        return self.registry.default
