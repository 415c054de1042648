"""How connections end, on a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.server.connections import Connection, IdleConnections, serve_connections
from tests.serving import running, settings

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PIECES, PIECE_BYTES = 640, 100_000
PATIENCE_SECONDS = 20.0  # a connection that nobody uses is kept for longer


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_a_connection_ends_with_its_client(tmp_path: Path, requests: int) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        for _ in range(requests):
            assert await _status(reader, writer) == 200
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_an_idle_connection_ends_with_the_server(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with running(create_app(configured), configured) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            assert await _status(reader, writer) == 200
        assert await reader.read() == b""
        writer.close()


async def test_head_and_body_of_an_answer_leave_together(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(HEALTH)
        received = await reader.read(65536)
        assert received.endswith(b"}")
        writer.close()


async def test_a_client_that_reads_slowly_is_waited_for() -> None:
    """What it has not taken is not all held in memory."""
    sent = received = lead = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for left in reversed(range(PIECES)):
            await send({"type": "http.response.body", "body": b"x" * PIECE_BYTES, "more_body": left > 0})
            sent += PIECE_BYTES

    async with _serving(app) as port, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while piece := await reader.read(65536):
            received += len(piece)
            lead = max(lead, sent - received)
        writer.close()
    assert received > sent == PIECES * PIECE_BYTES
    assert lead < sent / 2


async def test_an_idle_connection_ends_in_time_and_a_busy_one_does_not() -> None:
    """The first to become idle is the first to end, however the busy ones took turns with it."""
    config = _config(keep_alive_timeout=0.2)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with _serving(app, config) as port, asyncio.timeout(PATIENCE_SECONDS):
        unused, unused_writer = await asyncio.open_connection("127.0.0.1", port)
        busy, busy_writer = await asyncio.open_connection("127.0.0.1", port)
        busy_writer.write(HEALTH)
        assert await unused.read() == b""
        assert (await busy.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await busy.read() == b""
        unused_writer.close()
        busy_writer.close()


async def test_a_connection_that_becomes_idle_when_the_server_has_stopped_ends_at_once() -> None:
    """One that was accepted as the server stopped: nobody looks after the idle ones any more."""

    class Accepted:
        def __init__(self) -> None:
            self.closed = asyncio.Event()

        async def close(self) -> None:
            self.closed.set()

    idle = IdleConnections(seconds=60.0)
    idle.close()
    accepted = Accepted()
    idle.add(cast(Connection, accepted))
    await asyncio.wait_for(accepted.closed.wait(), PATIENCE_SECONDS)


async def test_a_connection_that_does_not_end_in_time_is_cut() -> None:
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_SECONDS):
        async with _serving(app, _config(graceful_timeout=0.1)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEALTH)
            await begun.wait()
        await reader.read()
        writer.close()


@asynccontextmanager
async def _serving(app: ASGIApp, config: Config | None = None) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    stop = asyncio.Event()
    framework = cast(ASGIFramework, app)
    serving = asyncio.create_task(serve_connections(framework, config or _config(), listener, stop))
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        await serving


def _config(keep_alive_timeout: float = 60.0, graceful_timeout: float = 60.0) -> Config:
    config = Config()
    config.keep_alive_timeout = keep_alive_timeout
    config.graceful_timeout = graceful_timeout
    return config


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(HEALTH)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])
