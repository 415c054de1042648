"""A real server on a free loopback port, in the test's own event loop; and an ASGI app driven by raw messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from service.app import Service
from service.server.server import bind, serve
from service.settings import Settings
from tests.patience import PATIENCE_SECONDS


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return msgspec.structs.replace(Settings(home=tmp_path, port=0, shutdown_grace_seconds=1.0), **changes)


@asynccontextmanager
async def running(app: Service, configured: Settings) -> AsyncIterator[str]:
    """The base URL of `app` while it is served; on leaving, the server has ended."""
    listener = bind(configured)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    server = asyncio.create_task(serve(app, configured, listener, stop))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        await server


def client_of(url: str = "") -> httpx.AsyncClient:
    """Without TLS, whose context takes 30 ms to make."""
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, verify=False)  # noqa: S501


class RawRequest:
    """One request to an ASGI app, message by message: what the app sent is in `sent`."""

    def __init__(self, path: str, body: bytes = b"", *, method: str = "POST", headers: dict[str, str] | None = None):
        given = {"host": "localhost", "content-type": "application/json", **(headers or {})}
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8081),
            "state": {},
        }
        self.sent: list[dict[str, Any]] = []
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        if body:
            self.receive_body(body)

    def receive_body(self, body: bytes, *, more: bool = False) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def run(self, app: Any) -> None:
        await app(self.scope, self.receive, self._send)

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.get()

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._changed:
            self.sent.append(message)
            self._changed.notify_all()

    async def until(self, text: bytes) -> None:
        """Waits until the app has sent `text` in its body."""
        async with self._changed:
            await self._changed.wait_for(lambda: text in self.body)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}
