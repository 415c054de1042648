"""What is no proper HTTP/1.1 is told so, in the shape of every other error, and its connection ends."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import h2.connection
import h2.events
import h11
import httpx
import pytest
from hypercorn.config import Config

from service.app import create_app
from service.server.http1 import RequestReader
from tests.patience import PATIENCE_SECONDS
from tests.serving import client_of, running, settings

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
TWO_LENGTHS = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        port = urlsplit(url).port
        assert port is not None
        yield port


async def answers(port: int, sent: bytes) -> bytes:
    """All that is answered until the server ends the connection, which the client keeps open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    finally:
        writer.close()


MALFORMED = {
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400, "Missing mandatory Host"),
    "two hosts": (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "multiple Host"),
    "a length below zero": (CHAT + b"Content-Length: -5\r\n\r\n", 400, "bad Content-Length"),
    "lengths that differ": (
        CHAT + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
        "conflicting Content-Length",
    ),
    "two kinds of length": (CHAT + TWO_LENGTHS + b"2\r\n{}\r\n0\r\n\r\n", 400, "both a Content-Length and a Transfer"),
    "an encoding of old": (CHAT + b"Transfer-Encoding: gzip\r\n\r\n", 501, "Only Transfer-Encoding: chunked"),
    "no size of a chunk": (CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "illegal chunk header"),
    "a letter outside of ASCII": ("GET /health?q=é HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400, "request line"),
    "a header without a colon": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n", 400, "header line"),
    "too long a header": (b"GET /health HTTP/1.1\r\nx: " + b"y" * 17_000, 431, "more than 16384 bytes"),
    "HTTP/2, which is off": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2 is off"),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00", 400, "request line"),
}


@pytest.mark.parametrize(("sent", "status", "said"), MALFORMED.values(), ids=MALFORMED)
async def test_what_was_wrong_is_said(port: int, sent: bytes, status: int, said: str) -> None:
    head, _, body = (await answers(port, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head.lower()
    assert b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_http", None)
    assert said in error["message"]
    assert len(error["message"]) <= 200


@pytest.mark.parametrize("behind", [b"0\r\n\r\n" + HEALTH, b"2\r\n{}\r\n0\r\n\r\n" + HEALTH])
async def test_nothing_behind_two_lengths_is_answered(port: int, behind: bytes) -> None:
    """A proxy that went by the other length has sent there what it takes for a body."""
    assert (await answers(port, CHAT + TWO_LENGTHS + behind)).count(b"HTTP/1.1 ") == 1


async def test_a_request_before_two_lengths_is_answered(port: int) -> None:
    answered = await answers(port, HEALTH + CHAT + TWO_LENGTHS)
    assert [status[:3] for status in answered.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]


async def test_a_head_request_is_refused_without_a_body(port: int) -> None:
    answered = await answers(port, b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n" + TWO_LENGTHS)
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_was_refused_stays_refused(size: int) -> None:
    """Whatever comes behind it, and however it is cut."""
    reader = RequestReader(Config())
    sent = CHAT + TWO_LENGTHS
    for start in range(0, len(sent), size):
        assert reader.refusal is None
        reader.receive_data(sent[start : start + size])
        with contextlib.suppress(h11.RemoteProtocolError):
            assert reader.next_event() is h11.NEED_DATA
    assert "both a Content-Length" in str(reader.refusal)
    for more in (b"0\r\n\r\n", HEALTH, b""):
        reader.receive_data(more)
        with pytest.raises(h11.RemoteProtocolError, match="both a Content-Length"):
            reader.next_event()


async def test_each_answer_has_the_date_of_its_second(port: int) -> None:
    async with client_of() as client:
        before = int(time.time())
        dates = [await date_of(client, port)]
        while dates[-1] == dates[0]:
            await asyncio.sleep(0.02)
            dates.append(await date_of(client, port))
        assert before <= dates[0] < dates[-1] <= time.time()


async def date_of(client: httpx.AsyncClient, port: int) -> float:
    answer = await client.get(f"http://127.0.0.1:{port}/health")
    return parsedate_to_datetime(answer.headers["date"]).timestamp()


async def test_an_upgrade_to_http2_is_passed_over(port: int) -> None:
    upgrade = b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    assert (await answers(port, HEALTH[:-2] + upgrade)).startswith(b"HTTP/1.1 200 ")


async def test_http2_is_served_if_it_is_set(tmp_path: Path) -> None:
    configured = settings(tmp_path, http2=True)
    async with running(create_app(configured), configured) as url, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        client = h2.connection.H2Connection()
        client.initiate_connection()
        client.send_headers(
            1,
            [(":method", "GET"), (":path", "/health"), (":scheme", "http"), (":authority", "localhost")],
            end_stream=True,
        )
        writer.write(client.data_to_send())
        status = ""
        while not status:
            for event in client.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"]
        writer.close()
    assert status == b"200"
