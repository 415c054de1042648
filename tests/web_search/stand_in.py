"""A server on loopback that answers like SearXNG, or in any worse way."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

BERN = {
    "url": "https://www.bern.example/old-town",
    "title": "Bern",
    "content": "The capital.",
    "publishedDate": "2026-01-02",
}
ZURICH = {"url": "https://zurich.example/", "title": "Zurich", "content": None, "score": 1.5}
PAGES = json.dumps({"query": "x", "results": [BERN, ZURICH], "answers": []}).encode()

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


def sends(body: bytes = PAGES, status: str = "200 OK", headers: str = "") -> Respond:
    async def respond(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)

    return respond


async def hangs(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await asyncio.Event().wait()


async def closes(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def never_ends(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


class SearchEngine:
    def __init__(self) -> None:
        self.url = ""
        self.queries: list[str] = []
        self.was_asked = asyncio.Event()

    def see(self, target: str) -> None:
        parts = urlsplit(target)
        asked = parse_qs(parts.query)
        assert (parts.path, asked["format"]) == ("/searx/search", ["json"])
        self.queries += asked["q"]
        self.was_asked.set()


@asynccontextmanager
async def search_engine(respond: Respond) -> AsyncIterator[SearchEngine]:
    engine = SearchEngine()
    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        answering.add(task)
        task.add_done_callback(answering.discard)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            engine.see(head.split()[1].decode())
            await respond(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/searx/"
    try:
        yield engine
    finally:
        server.close()
        for task in answering:
            task.cancel()
