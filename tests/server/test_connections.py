"""How connections end, on a real server."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.server.connections import Connection, ConnectionLimits, IdleConnections, serve_connections
from tests.patience import PATIENCE_SECONDS
from tests.serving import running, settings

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PIECES, PIECE_BYTES = 640, 100_000
BEFORE_IDLE_SECONDS = ConnectionLimits().idle_seconds - 15


class FakeConnection:
    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.refused = asyncio.Event()

    async def close(self) -> None:
        self.closed.set()

    async def refuse_head(self) -> None:
        self.refused.set()


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_a_connection_ends_with_its_client(tmp_path: Path, requests: int) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, asyncio.timeout(BEFORE_IDLE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        for _ in range(requests):
            assert await _status(reader, writer) == 200
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_an_idle_connection_ends_with_the_server(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with asyncio.timeout(BEFORE_IDLE_SECONDS):
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


@pytest.mark.parametrize("header", [(b"x", b"a\r\nset-cookie: b"), (b"x\nset-cookie", b"a"), (b"x", b"a\0")])
async def test_no_header_of_the_app_begins_another(header: tuple[bytes, bytes]) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [header]})

    async with _serving(answer) as port, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await _status(reader, writer) == 500
        writer.close()


async def test_a_whole_answer_has_left_when_the_app_has_sent_it() -> None:
    client = socket.socket()
    client.setblocking(False)
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, receive, send)
        # The loop has had no turn since, so nothing else can have sent it.
        arrived.put_nowait(client.recv(4096))

    async with _serving(answer) as port, asyncio.timeout(PATIENCE_SECONDS):
        with client:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, HEALTH)
            assert (await arrived.get()).startswith(b"HTTP/1.1 200")


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
    """The busy one is asked on before the idle one, and still works after the idle one's time is over."""
    idle_ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await idle_ended.wait()
        await respond(scope, receive, send)

    async with _serving(app, ConnectionLimits(idle_seconds=0.5)) as port, asyncio.timeout(PATIENCE_SECONDS):
        busy, busy_writer = await asyncio.open_connection("127.0.0.1", port)
        busy_writer.write(HEALTH)
        unused, unused_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await unused.read() == b""
        idle_ended.set()
        assert (await busy.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await busy.read() == b""
        unused_writer.close()
        busy_writer.close()


@pytest.mark.parametrize("before", [b"", HEALTH], ids=["the first", "the second"])
@pytest.mark.parametrize("cut", [1, 20, len(HEALTH) - 1])
async def test_a_head_that_does_not_end_is_refused(before: bytes, cut: int) -> None:
    limits = ConnectionLimits(head_seconds=0.3)
    async with _serving(respond, limits) as port, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(before + HEALTH[:cut])
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        writer.close()
    assert [answer[:3] for answer in answers] == ([b"200", b"408"] if before else [b"408"])
    assert b"connection: close" in answers[-1].lower()
    assert "did not come in time" in json.loads(answers[-1].partition(b"\r\n\r\n")[2])["error"]["message"]


async def test_more_of_a_head_does_not_give_it_more_time() -> None:
    """Each byte comes well within the limit, all of them together do not."""
    async with _serving(respond, ConnectionLimits(head_seconds=0.2)) as port, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        while not answered.done():
            writer.write(b"y")
            await asyncio.sleep(0.01)
        assert answered.result().startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_an_answer_may_take_longer_than_a_head() -> None:
    idle = IdleConnections(ConnectionLimits(head_seconds=0.01))
    asked, late = FakeConnection(), FakeConnection()
    idle.head_begins(cast(Connection, asked))
    idle.remove(cast(Connection, asked))
    idle.head_begins(cast(Connection, late))
    await asyncio.wait_for(late.refused.wait(), PATIENCE_SECONDS)
    assert not asked.refused.is_set()


async def test_the_oldest_idle_connection_gives_way_to_a_new_one() -> None:
    async with _serving(respond, ConnectionLimits(connections=3)) as port, asyncio.timeout(PATIENCE_SECONDS):
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in kept:
            writer.write(HEALTH)
            await reader.readuntil(b"\r\n\r\n")
        new, new_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await kept[0][0].read() == b""
        for reader, writer in [*kept[1:], (new, new_writer)]:
            writer.write(HEALTH)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in [*kept, (new, new_writer)]:
            writer.close()


async def test_a_connection_that_becomes_idle_when_the_server_has_stopped_ends_at_once() -> None:
    """It was accepted as the server stopped."""
    idle = IdleConnections(ConnectionLimits())
    idle.close()
    accepted = FakeConnection()
    idle.add(cast(Connection, accepted))
    await asyncio.wait_for(accepted.closed.wait(), PATIENCE_SECONDS)


async def test_a_connection_that_does_not_end_in_time_is_cut() -> None:
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_SECONDS):
        async with _serving(app, ConnectionLimits(grace_seconds=0.1)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEALTH)
            await begun.wait()
        await reader.read()
        writer.close()


async def test_a_client_that_does_not_read_does_not_keep_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(PIECES):
                await send({"type": "http.response.body", "body": b"x" * PIECE_BYTES, "more_body": True})
        finally:
            ended.set()

    begun, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with _serving(app, ConnectionLimits(grace_seconds=0.1)) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.write(HEALTH)
            await begun.wait()
        assert ended.is_set()
        writer.close()


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _serving(app: ASGIApp, limits: ConnectionLimits | None = None) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve_connections(app, limits or ConnectionLimits(), listener, stop))
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        await serving


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(HEALTH)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])
