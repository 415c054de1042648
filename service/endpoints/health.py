"""`GET /health` and `HEAD /`. Both answer at once, even while the model loads or generates."""

from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from service.endpoints.context import ServiceContext
from service.http.responses import json_response
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.statistics import CacheStatistics


class HealthEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        executor = self._context.executor
        status, numbers = executor.status(), await executor.statistics()
        body = {
            "status": status.state,
            "model": executor.profile.id,
            "model_loaded": status.loaded,
            "cache": {name: getattr(numbers, name) for name in CacheStatistics.__struct_fields__},
            "running": status.running,
            "waiting": status.waiting,
            "max_concurrency": status.max_concurrency or self._context.settings.most_running,
            "detail": status.detail,
            "last_end": status.last_end,
            "models": [self._state_of(name, executor) for name, executor in self._context.registry.executors.items()],
        }
        await json_response(body, 503 if status.state == "unhealthy" else 200)(scope, receive, send)

    def _state_of(self, name: str, executor: CachingExecutor) -> dict[str, object]:
        status = executor.status()
        return {
            "name": name,
            "status": status.state,
            "model_loaded": status.loaded,
            "running": status.running,
            "waiting": status.waiting,
            "memory_bytes": status.memory_bytes,
            "detail": status.detail,
            "last_end": status.last_end,
        }


class RootEndpoint:
    """Claude Code sends `HEAD /` first. Browsers are redirected to the dashboard."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"text/html" in scope["state"]["headers"].get(b"accept", b""):
            await RedirectResponse("/dashboard")(scope, receive, send)
            return
        links = {"name": "anyclaude", "health": "/health", "dashboard": "/dashboard"}
        await json_response(links)(scope, receive, send)
