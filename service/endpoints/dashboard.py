"""The page contains no data of the server, so it is open. Its events need a key if keys are required: the page reads
them with `fetch`, because `EventSource` cannot send a header.
"""

import asyncio
from contextlib import suppress

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.dashboard import ASSETS, PAGE, read_asset
from service.dialects.sse import CONTENT_TYPE, frame
from service.endpoints.context import ServiceContext
from service.endpoints.stats import StatsEndpoint
from service.errors import Overloaded, UnknownPath
from service.http.client_watch import ClientGone, ClientWatch

INTERVAL_SECONDS = 1.0
MAX_LISTENERS = 16
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class DashboardFiles:
    def __init__(self) -> None:
        self._files = {name: read_asset(name) for name in ASSETS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path_params"].get("name", PAGE)
        if name not in ASSETS:
            raise UnknownPath(f"There is no GET {scope['path']} here. See GET /dashboard.")
        await Response(self._files[name], media_type=ASSETS[name], headers=HEADERS)(scope, receive, send)


class DashboardEvents:
    """Sends the statistics as server-sent events, `interval` seconds apart. Each listener reads them for itself in a
    fraction of a millisecond."""

    def __init__(
        self,
        context: ServiceContext,
        stats: StatsEndpoint,
        *,
        interval: float = INTERVAL_SECONDS,
        max_listeners: int = MAX_LISTENERS,
    ) -> None:
        self.listeners = 0
        self._context = context
        self._stats = stats
        self._interval = interval
        self._max_listeners = max_listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.listeners >= self._max_listeners:
            message = f"{self.listeners} dashboards listen already. Close one of them."
            raise Overloaded(message, retry_after=self._interval)
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"x-accel-buffering", b"no")]})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        self.listeners += 1
        try:
            with suppress(ClientGone):
                await ClientWatch(receive).run(self._write(send))
        finally:
            self.listeners -= 1

    async def _write(self, send: Send) -> None:
        stopping = self._context.stopping
        while not stopping.is_set():
            event = frame(msgspec.json.encode(await self._stats.read()))
            await send({"type": "http.response.body", "body": event, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await stopping.wait()
        await send({"type": "http.response.body", "body": b""})
