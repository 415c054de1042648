"""Logs requests that generate nothing. `service.telemetry.request_log` logs the others."""

import logging
import time
from collections.abc import Awaitable, Iterable

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("anyclaude.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Programs poll these. They are logged at debug level only.
POLLED = frozenset({"/health", "/metrics", "/stats", "/dashboard/events", "/dashboard/logs"})


class AccessLog:
    """Logs the route's path, because the request's contains text of the client."""

    def __init__(self, app: ASGIApp, routes: Iterable[Route]) -> None:
        self._app = app
        self._paths = {route.endpoint: route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        def observed_send(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception:
            status = status or 500
            raise
        finally:
            if "record" not in scope["state"]:
                self._log(scope, status, (time.perf_counter() - started) * 1e3)

    def _log(self, scope: Scope, status: int, milliseconds: float) -> None:
        request_id = scope["state"]["request_id"]
        method = scope["method"] if scope["method"] in METHODS else "another method"
        path = self._paths[scope["endpoint"]] if "endpoint" in scope else "no path of ours"
        logger.log(
            logging.DEBUG if path in POLLED else logging.INFO,
            "%s %s %s %d in %.1f ms",
            *(request_id, method, path, status, milliseconds),
            extra={
                "request_id": request_id,
                "method": method,
                "path": path,
                "status": status,
                "total_ms": round(milliseconds, 3),
            },
        )
