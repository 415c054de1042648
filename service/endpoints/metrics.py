"""`GET /metrics`, for Prometheus. Where keys are required it takes one too (`authorization` in a scrape's settings)."""

from starlette.requests import Request
from starlette.responses import Response

from service.http.access import identify_caller
from service.http.request_headers import read_headers
from service.settings import Settings
from service.telemetry.metrics.registry import Metrics


class MetricsEndpoint:
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics

    async def get(self, request: Request) -> Response:
        identify_caller(read_headers(request.scope), self._settings)
        exposition, content_type = await self._metrics.render(request.headers.get("accept", ""))
        return Response(exposition, headers={"content-type": content_type})
