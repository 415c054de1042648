"""`GET /health` and `HEAD /`: answered at once, also while the model loads or generates."""

from starlette.requests import Request
from starlette.responses import Response

from service.endpoints.context import ServiceContext
from service.endpoints.json_response import json_response

HEALTH_OF_STATE = {"loading": "loading", "ready": "healthy", "stalled": "degraded", "failed": "unhealthy"}


class HealthEndpoint:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def health(self, request: Request) -> Response:
        status = self._context.executor.status()
        health = HEALTH_OF_STATE[status.state]
        body = {
            "status": health,
            "model": self._context.executor.profile.id,
            "model_loaded": status.state in ("ready", "stalled"),
            "cache": await self._context.cache_statistics(),
            "running": status.running,
            "waiting": status.waiting,
            "detail": status.detail,
        }
        return json_response(body, 503 if health == "unhealthy" else 200)

    async def root(self, request: Request) -> Response:
        """Claude Code asks `HEAD /` before anything else."""
        return json_response({"name": "anyclaude", "health": "/health"})
