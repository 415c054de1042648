"""Sends HTTP/1.1 on raw streams, so that the client's own time is small."""

import asyncio
import json
import time
from typing import Any

import msgspec

HOST = "127.0.0.1"
CHAT = "/v1/chat/completions"


class Response(msgspec.Struct, frozen=True):
    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def events(self) -> list[Any]:
        lines = (line[5:].strip() for line in self.body.splitlines() if line.startswith(b"data:"))
        return [msgspec.json.decode(line) for line in lines if line != b"[DONE]"]


class UnexpectedResponse(Exception):
    """The message shows the response."""


def post(path: str, body: bytes) -> bytes:
    """Builds a whole request, which may be sent many times."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def post_json(path: str, value: Any) -> bytes:
    return post(path, json.dumps(value).encode())


def post_chat(value: Any) -> bytes:
    return post_json(CHAT, value)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


class Connection:
    """One keep-alive connection: `async with Connection(port) as connection`."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def exchange(self, request: bytes) -> Response:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        return Response(int(head[9:12]), head, await self._read_body(head.lower()))

    async def send(self, request: bytes) -> Response:
        """Raises `UnexpectedResponse` unless the status is 200."""
        response = await self.exchange(request)
        if response.status != 200:
            raise UnexpectedResponse(f"Expected status 200, found {response.status}: {response.body[:300]!r}")
        return response

    async def _read_body(self, head: bytes) -> bytes:
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if found:
            return await self._reader.readexactly(int(rest[: rest.index(b"\r\n")]))
        if b"\r\ntransfer-encoding: chunked" not in head:
            return await self._reader.read()
        chunks = []
        while size := int(await self._reader.readline(), 16):
            chunks.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readline()
        return b"".join(chunks)


class Streamed(msgspec.Struct, frozen=True):
    """Times are in seconds since the request."""

    first_text_seconds: float
    text: str


async def stream(port: int, request: bytes) -> Streamed:
    """Uses a new connection. Raises `UnexpectedResponse` if no text comes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    started = time.perf_counter()
    writer.write(request)
    first = 0.0
    parts = []
    # The server sends whole events in chunks, so lines of chunk sizes can be skipped.
    while (line := await reader.readline()) and line.strip() != b"data: [DONE]":
        text = _text_of(line)
        first = first or (time.perf_counter() - started if text else 0.0)
        parts.append(text)
    writer.close()
    if not first:
        raise UnexpectedResponse("Expected a stream with text, found none")
    return Streamed(first, "".join(parts))


def _text_of(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = msgspec.json.decode(line[6:]).get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


async def fetch(port: int, request: bytes) -> Response:
    """Uses a new connection. Raises `UnexpectedResponse` unless the status is 200."""
    async with Connection(port) as connection:
        return await connection.send(request)
