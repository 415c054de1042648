"""`GET /metrics`, for Prometheus. If keys are required, its `authorization` setting must hold one."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.telemetry.metrics.registry import Metrics


class MetricsEndpoint:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = scope["state"]["headers"].get(b"accept", b"").decode("latin-1")
        exposition, content_type = await self._metrics.render(accept)
        await Response(exposition, headers={"content-type": content_type})(scope, receive, send)
