"""How connections end, on a real server."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.app import create_app
from tests.serving import running, settings

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
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


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(HEALTH)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])
