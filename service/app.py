import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cache_backends import CacheBackend, open_backend
from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_completions import OpenAICompletions
from service.dialects.openai_embeddings import OpenAIEmbeddings
from service.dialects.openai_responses import OpenAIResponses, ResponseCompaction
from service.endpoints.cache import CacheEndpoint
from service.endpoints.connect import ConnectEndpoint
from service.endpoints.context import ServiceContext
from service.endpoints.count_tokens import CountTokensEndpoint
from service.endpoints.dashboard import DashboardEvents, DashboardFiles
from service.endpoints.generation import GenerationEndpoint
from service.endpoints.health import HealthEndpoint, RootEndpoint
from service.endpoints.logs import LogsEndpoint
from service.endpoints.metrics import MetricsEndpoint
from service.endpoints.models import ModelEndpoint, ModelListEndpoint, ModelLoadEndpoint
from service.endpoints.prefix_cache import PrefixCacheEndpoint
from service.endpoints.prompts import PromptsEndpoint
from service.endpoints.recommended import recommended
from service.endpoints.responses_api import InputTokensEndpoint, ResponsesEndpoint, StoredResponsesEndpoint
from service.endpoints.searching import SearchingEndpoint
from service.endpoints.stats import StatsEndpoint
from service.endpoints.stored_responses import KEPT_SECONDS, StoredResponses
from service.endpoints.tokens import TokensEndpoint, detokenize, tokenize
from service.endpoints.traces import TracesEndpoint
from service.errors import ServiceError
from service.executor.base import Executor, ExecutorStatus
from service.executor.process.engine_process import EngineProcess
from service.executor.scripted import ScriptedExecutor
from service.http.access_log import AccessLog
from service.http.body import BodyReader
from service.http.cross_origin import cross_origin
from service.http.gate import Gate, OpenRoute
from service.http.responses import handle_defect, handle_http_exception, handle_service_error
from service.http.trace_recorder import TraceRecorder
from service.http.traces import TraceWriter
from service.keep_awake import stay_awake
from service.model_registry.registry import ModelRegistry
from service.model_registry.residency import Residency
from service.recording.recorder import FileRecorder
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.documents import DocumentStore
from service.settings import Settings
from service.telemetry.activity import Activity, keep_sampling
from service.telemetry.metrics.registry import Metrics
from service.telemetry.request_log import HITS_A_SECOND, RequestLog
from service.warming import warm

logger = logging.getLogger("anyclaude.server")

EXCEPTION_HANDLERS: dict[Any, Any] = {
    ServiceError: handle_service_error,
    HTTPException: handle_http_exception,
    Exception: handle_defect,
}


class Service(Starlette):
    """Call `stop` before the lifespan ends."""

    def __init__(self, context: ServiceContext, **options: Any) -> None:
        super().__init__(**options)
        self.router.redirect_slashes = False
        self._context = context
        self._open_requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        self._open_requests += 1
        self._idle.clear()
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._open_requests -= 1
            if not self._open_requests:
                self._idle.set()

    def status(self) -> ExecutorStatus:
        return self._context.executor.status()

    async def stop(self) -> None:
        """Ends endless streams. Running answers have `shutdown_grace_seconds` to end, then they fail with
        `ShuttingDown`."""
        seconds = self._context.settings.shutdown_grace_seconds
        self._context.stopping.set()
        loading = self.status().state == "loading"
        awaited = "the model is still loading" if loading else f"answers have {seconds:g} seconds to end"
        logger.info("stopping: %s; a second signal ends the server at once", awaited)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        await self._context.registry.aclose()


def create_app(
    settings: Settings,
    *,
    executor: Executor | None = None,
    cache: CacheBackend | None = None,
    others: Mapping[str, Executor] | None = None,
) -> Service:
    """`executor` defaults to `ScriptedExecutor`, `cache` to the settings' store. `others` are the executors of
    `settings.models`. The app starts and closes them all. Raises ArchiveError and OSError for the file in
    `settings.record`."""
    generating = executor or ScriptedExecutor(concurrency=settings.most_running)
    recorder = None if settings.record is None else FileRecorder(Path(settings.record), generating.profile)
    store = cache or open_backend(settings.cache)
    caching = CachingExecutor(generating, store, settings, recorder=recorder)
    metrics, activity = Metrics(generating, caching.statistics), Activity()
    log = RequestLog(None if settings.debug_level else HITS_A_SECOND, names_models=bool(others))
    context = ServiceContext(
        settings=settings,
        registry=_registry(settings, generating, others or {}, caching),
        bodies=BodyReader(settings),
        documents=DocumentStore(store, ttl_seconds=KEPT_SECONDS),
        activity=activity,
        observers=(log.observe, metrics.observe, activity.observe),
    )
    traces = TraceWriter(settings.home / "traces", settings.trace_max_bytes) if settings.debug_level >= 2 else None

    @asynccontextmanager
    async def lifespan(_: Service) -> AsyncIterator[None]:
        await context.registry.start()
        tasks = [
            asyncio.create_task(warm(generating, settings)),
            asyncio.create_task(keep_sampling(activity, caching.status)),
            asyncio.create_task(stay_awake(settings, context.registry.busy)),
        ]
        try:
            with context.log_ring.attached():
                yield
        finally:
            for task in tasks:
                task.cancel()
            await context.registry.aclose()
            if traces is not None:
                await asyncio.to_thread(traces.close)

    routes = [*_api_routes(context), *_monitoring_routes(context, metrics)]
    middleware = _middleware(settings, routes, traces)
    return Service(
        context, routes=routes, lifespan=lifespan, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS
    )


def _registry(
    settings: Settings, default: Executor, others: Mapping[str, Executor], cached: CachingExecutor
) -> ModelRegistry:
    executors = {default.profile.id: default, **others}
    engines = {name: engine for name, engine in executors.items() if isinstance(engine, EngineProcess)}
    residency = None
    if len(engines) == len(executors):
        pinned = {engines[name] for name, model in settings.models.items() if model.pin and name in engines}
        residency = Residency(list(engines.values()), pinned, idle_seconds=settings.idle_unload_seconds)
    return ModelRegistry(executors, cached, aliases=settings.aliases, residency=residency)


def _middleware(settings: Settings, routes: list[Route], traces: TraceWriter | None) -> list[Middleware]:
    middleware = [Middleware(AccessLog, routes=routes), Middleware(Gate, settings=settings, routes=routes)]
    if settings.allowed_origins:
        middleware.insert(0, cross_origin(settings.allowed_origins))
    if traces is not None:
        middleware.append(Middleware(TraceRecorder, writer=traces))
    return middleware


def _api_routes(context: ServiceContext) -> list[Route]:
    searches = bool(context.settings.web_search_url)
    messages, responses = AnthropicMessages(searches=searches), OpenAIResponses(searches=searches)
    compaction = ResponseCompaction(responses)
    stored = StoredResponses(responses.kept, context.documents)
    by_id = StoredResponsesEndpoint(stored)
    return [
        # Routes are tried in their order: agents use the first three.
        Route("/v1/messages", SearchingEndpoint(context, messages), methods=["POST"]),
        Route("/v1/chat/completions", GenerationEndpoint(context, OpenAIChat()), methods=["POST"]),
        Route("/v1/responses", ResponsesEndpoint(context, responses, stored), methods=["POST"]),
        Route("/v1/completions", PromptsEndpoint(context, OpenAICompletions()), methods=["POST"]),
        Route("/v1/embeddings", PromptsEndpoint(context, OpenAIEmbeddings()), methods=["POST"]),
        Route("/tokenize", TokensEndpoint(context, tokenize), methods=["POST"]),
        Route("/detokenize", TokensEndpoint(context, detokenize), methods=["POST"]),
        Route("/v1/messages/count_tokens", CountTokensEndpoint(context, messages), methods=["POST"]),
        Route("/v1/responses/compact", ResponsesEndpoint(context, compaction, stored), methods=["POST"]),
        Route("/v1/responses/input_tokens", InputTokensEndpoint(context, responses, stored), methods=["POST"]),
        Route("/v1/responses/{id}", by_id.get, methods=["GET"]),
        Route("/v1/responses/{id}", by_id.delete, methods=["DELETE"]),
        Route("/v1/responses/{id}/input_items", by_id.input_items, methods=["GET"]),
        Route("/v1/responses/{id}/cancel", by_id.cancel, methods=["POST"]),
        Route("/v1/models", ModelListEndpoint(context), methods=["GET"]),
        Route("/v1/models/{id:path}/load", ModelLoadEndpoint(context, loads=True), methods=["POST"]),
        Route("/v1/models/{id:path}/unload", ModelLoadEndpoint(context, loads=False), methods=["POST"]),
        Route("/v1/models/{id:path}", ModelEndpoint(context), methods=["GET"]),
        OpenRoute("/health", HealthEndpoint(context), methods=["GET"]),
        OpenRoute("/", RootEndpoint(), methods=["GET"]),
    ]


def _monitoring_routes(context: ServiceContext, metrics: Metrics) -> list[Route]:
    stats, files, cache = StatsEndpoint(context), DashboardFiles(), CacheEndpoint(context)
    return [
        Route("/cache", cache.list, methods=["GET"]),
        Route("/cache", cache.clear, methods=["DELETE"]),
        Route("/cache/{key}", cache.get, methods=["GET"]),
        Route("/cache/{key}", cache.remove, methods=["DELETE"]),
        Route("/prefix-cache", PrefixCacheEndpoint(context).read, methods=["GET"]),
        Route("/metrics", MetricsEndpoint(metrics), methods=["GET"]),
        Route("/stats", stats, methods=["GET"]),
        Route("/dashboard/events", DashboardEvents(context, stats), methods=["GET"]),
        Route("/dashboard/connect", ConnectEndpoint(context).read, methods=["GET"]),
        Route("/dashboard/logs", LogsEndpoint(context.log_ring).read, methods=["GET"]),
        Route("/dashboard/traces/{id}", TracesEndpoint(context).read, methods=["GET"]),
        Route("/dashboard/recommended", recommended, methods=["GET"]),
        OpenRoute("/dashboard", files, methods=["GET"]),
        OpenRoute("/dashboard/{name}", files, methods=["GET"]),
    ]
