"""Whatever a client sends is answered in the protocol's shape, and the server goes on."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.app import create_app
from service.executor.scripted import PROFILE, ScriptedExecutor
from tests.patience import PATIENCE_SECONDS
from tests.serving import client_of, running, settings

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
JSON = {"content-type": "application/json"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path) as client:
        yield client


@asynccontextmanager
async def serving(tmp_path: Path, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    configured = settings(tmp_path, max_body_bytes=100_000, **changes)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        yield client


def assert_error_shape(response: httpx.Response, *, anthropic: bool) -> None:
    body = response.json()
    if anthropic:
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        assert body["request_id"] == response.headers["request-id"]
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]


BODIES = [
    pytest.param(b"", 400, id="empty"),
    pytest.param(b"{", 400, id="cut"),
    pytest.param(b"[]", 400, id="array"),
    pytest.param(b"null", 400, id="null"),
    pytest.param(b"\xff\xfe", 400, id="bad-utf8"),
    pytest.param(b'{"messages": "\xff"}', 400, id="bad-utf8-inside"),
    pytest.param(b'{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 5}', 400, id="surrogate"),
    pytest.param(b"[" * 50_000, 400, id="deep-open"),
    pytest.param(b'{"messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400, id="deep"),
    pytest.param(b'{"a":' * 8_000 + b"1" + b"}" * 8_000, 400, id="deep-objects"),
    pytest.param(b'{"max_tokens": ' + b"9" * 400 + b"}", 400, id="400-digits"),
    pytest.param(json.dumps({**HELLO, "temperature": 1e308}).encode(), 400, id="hot"),
    pytest.param(b'{"messages": [], "temperature": NaN}', 400, id="nan"),
    pytest.param(json.dumps({**HELLO, "max_tokens": -1}).encode(), 400, id="negative"),
    pytest.param(json.dumps({**HELLO, "model": "another"}).encode(), 404, id="model"),
    pytest.param(json.dumps({**HELLO, "stream": "yes"}).encode(), 400, id="stream-type"),
    pytest.param(json.dumps({**HELLO, "messages": []}).encode(), 400, id="no-messages"),
    pytest.param(b" " * 100_001, 413, id="large"),
]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(("body", "status"), BODIES)
async def test_bad_body_is_refused_in_shape(client: httpx.AsyncClient, path: str, body: bytes, status: int) -> None:
    response = await client.post(path, content=body, headers=JSON)
    assert response.status_code == status
    assert_error_shape(response, anthropic=path == MESSAGES)
    assert (await client.post(path, json=HELLO)).status_code == 200


LONG = 10**400
LONG_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": LONG}}}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": LONG_SCHEMA}}]}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": LONG_SCHEMA}}}),
        (CHAT, {"chat_template_kwargs": {"n": LONG}}),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": LONG_SCHEMA}]}),
    ],
    ids=["tools", "response-format", "template-arguments", "anthropic-tools"],
)
async def test_free_form_json_may_hold_integers_of_any_size(
    client: httpx.AsyncClient, path: str, field: dict[str, object]
) -> None:
    assert (await client.post(path, json=HELLO | field)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/models/another", 404),
        ("GET", CHAT, 405),
        ("DELETE", MESSAGES, 405),
        ("POST", "/health", 405),
        ("PUT", "/v1/models", 405),
        ("OPTIONS", CHAT, 405),
        ("GET", "/v1/messages/nothing", 404),
    ],
)
async def test_wrong_path_or_method(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert_error_shape(response, anthropic=path.startswith(MESSAGES))
    assert ("allow" in response.headers) == (status == 405)


async def test_a_long_path_is_not_repeated_in_full(client: httpx.AsyncClient) -> None:
    response = await client.get("/" + "a" * 10_000)
    assert response.status_code == 404
    assert len(response.content) < 500


async def test_error_shape_follows_the_client_on_shared_paths(client: httpx.AsyncClient) -> None:
    response = await client.get("/nowhere", headers={"anthropic-version": "2023-06-01"})
    assert_error_shape(response, anthropic=True)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_content_type_must_be_json(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post(CHAT, content=json.dumps(HELLO), headers={"content-type": content_type})
    assert response.status_code == 415
    assert_error_shape(response, anthropic=False)


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("zstd", 415), ("Identity", 200)])
async def test_a_compressed_body_is_refused_as_one(client: httpx.AsyncClient, encoding: str, status: int) -> None:
    response = await client.post(CHAT, json=HELLO, headers={"content-encoding": encoding})
    assert response.status_code == status
    if status != 200:
        assert f"'Content-Encoding: {encoding}'" in response.json()["error"]["message"]
        assert_error_shape(response, anthropic=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8081", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:80.evil.example", 403),
        ("[::1].evil.example", 403),
    ],
)
async def test_foreign_host_is_refused(client: httpx.AsyncClient, host: str, status: int) -> None:
    response = await client.get("/health", headers={"host": host})
    assert response.status_code == status
    if status != 200:
        assert_error_shape(response, anthropic=False)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/health", "localhost", 200),
        ("http://127.0.0.1:8081/health?x=1", "evil.example", 200),
        ("HTTP://localhost", "localhost", 200),
        ("http://evil.example/health", "localhost", 403),
        ("http://localhost/v1/models/%73cripted", "localhost", 200),
        ("ftp://localhost/health", "localhost", 404),
        ("*", "localhost", 404),
    ],
)
async def test_a_target_with_a_host_names_the_host(
    client: httpx.AsyncClient, target: str, host: str, status: int
) -> None:
    request = f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    answer = await exchange(client.base_url, request.encode())
    assert answer.split()[1] == str(status).encode()


async def test_no_cross_origin_permission_is_ever_given(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=HELLO, headers={"origin": "https://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


async def exchange(url: httpx.URL, *sent: bytes) -> bytes:
    """Everything that the server answers to raw bytes on one connection, until it closes."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        for data in sent:
            writer.write(data)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    finally:
        writer.close()


CHUNKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


async def test_a_body_that_never_ends_meets_the_deadline(tmp_path: Path) -> None:
    async with serving(tmp_path, body_timeout_seconds=0.3) as client:
        answer = await exchange(client.base_url, CHUNKED, b'd\r\n{"messages": \r\n')
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code":"request_timeout"' in answer
        assert (await client.get("/health")).status_code == 200


async def test_a_chunked_body_is_bounded(client: httpx.AsyncClient) -> None:
    answer = await exchange(client.base_url, CHUNKED, *[b"400\r\n" + b" " * 1024 + b"\r\n"] * 98)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"request_too_large"' in answer


@pytest.mark.parametrize("pieces", [1, 11, 3000])
@pytest.mark.parametrize(
    ("request_line", "content_type", "status"),
    [
        (b"POST /nowhere", b"application/json", b"404"),
        (b"POST /health", b"application/json", b"405"),
        (b"GET /health", b"application/json", b"200"),
        (b"POST /v1/messages", b"text/plain", b"415"),
        (b"POST /v1/chat/completions", b"text/plain", b"415"),
    ],
)
async def test_a_body_that_nobody_reads_does_not_hold_the_connection(
    client: httpx.AsyncClient, request_line: bytes, content_type: bytes, status: bytes, pieces: int
) -> None:
    head = request_line + b" HTTP/1.1\r\nhost: localhost\r\ncontent-type: " + content_type
    answer = await exchange(client.base_url, head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * pieces)
    assert answer.startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NONSENSE\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
    ],
    ids=["tls", "nonsense", "negative-length", "two-lengths", "endless-headers"],
)
async def test_what_is_no_http_is_refused_and_the_server_goes_on(client: httpx.AsyncClient, sent: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        assert (await exchange(client.base_url, sent))[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")
    assert (await client.get("/health")).status_code == 200


async def test_many_connections_at_once_are_kept_until_they_are_accepted(client: httpx.AsyncClient) -> None:
    """The event loop does not run meanwhile: whatever connects here waits in the kernel."""
    assert (await client.get("/health")).status_code == 200
    address = client.base_url.host, client.base_url.port
    with contextlib.ExitStack() as connections:
        for _ in range(300):
            connections.enter_context(socket.create_connection(address, timeout=0.9))
        assert (await client.get("/health")).status_code == 200


async def test_a_wrong_request_is_refused_before_its_stream_opens(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json={**HELLO, "stream": True, "temperature": 9})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert_error_shape(response, anthropic=False)


async def test_a_prompt_longer_than_the_context_is_refused_before_its_stream_opens(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    small = msgspec.structs.replace(PROFILE, context_length=10)
    app = create_app(configured, executor=ScriptedExecutor(profile=small))
    long = {"messages": [{"role": "user", "content": "word " * 20}], "max_tokens": 5, "stream": True}
    async with running(app, configured) as url, client_of(url) as client:
        chat = await client.post(CHAT, json=long)
        messages = await client.post(MESSAGES, json=long)
    assert (chat.status_code, chat.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert messages.status_code == 400
    assert messages.json()["error"]["message"] == "prompt is too long: 20 tokens > 10 maximum"
