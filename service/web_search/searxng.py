"""Searches by SearXNG's API: `GET /search?q=...&format=json`."""

import asyncio
import logging
import ssl
from urllib.parse import urlencode, urlsplit

import h11
import msgspec

from service.config.address import parse_base_url
from service.dialects.base import WebSearchTool
from service.generation import SearchError, SearchResult
from service.web_search.domains import is_wanted, restricted

logger = logging.getLogger("anyclaude.web_search")

DEADLINE_SECONDS = 15.0
MAX_ANSWER_BYTES = 2 * 1024 * 1024
MAX_QUERY_CHARS = 1000
MAX_RESULTS = 10
MAX_URL_CHARS = 2000
MAX_TITLE_CHARS = 300
MAX_SNIPPET_CHARS = 1000
_READ_BYTES = 65_536


class SearchFailed(Exception):
    def __init__(self, code: SearchError) -> None:
        super().__init__(code)
        self.code: SearchError = code


class FoundPage(msgspec.Struct, rename={"published": "publishedDate"}):
    url: str
    title: str | None = None
    content: str | None = None
    published: str | None = None


class SearchPage(msgspec.Struct):
    results: list[FoundPage]


class SearxngServer:
    """Follows no redirect and uses no proxy, so a query goes to the configured server only."""

    def __init__(self, url: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._address = parse_base_url(url)
        self._deadline_seconds = deadline_seconds

    async def search(self, query: str, tool: WebSearchTool) -> tuple[SearchResult, ...]:
        """Raises SearchFailed."""
        if len(query) > MAX_QUERY_CHARS:
            raise SearchFailed("query_too_long")
        try:
            async with asyncio.timeout(self._deadline_seconds):
                body = await self._get(urlencode({"q": restricted(query, tool), "format": "json"}))
            found = msgspec.json.decode(body, type=SearchPage).results
        except (OSError, h11.ProtocolError, msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            logger.warning("the web search at %s failed: %s", self._address.root, exc or "no answer in time")
            raise SearchFailed("unavailable") from exc
        wanted = (page for page in found if len(page.url) <= MAX_URL_CHARS and is_wanted(page.url, tool))
        return tuple(_result(page) for page, _ in zip(wanted, range(MAX_RESULTS), strict=False))

    async def _get(self, query: str) -> bytes:
        root = urlsplit(self._address.root)
        tls = ssl.create_default_context() if root.scheme == "https" else None
        reader, writer = await asyncio.open_connection(self._address.host, self._address.port, ssl=tls)
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = [("host", root.netloc), ("accept", "application/json"), ("connection", "close")]
            request = h11.Request(method="GET", target=f"{root.path}/search?{query}", headers=headers)
            writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            return await self._read(connection, reader)
        finally:
            writer.close()

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> bytes:
        body = bytearray()
        while True:
            match connection.next_event():
                case h11.Response(status_code=status) if status != 200:
                    self._refused(status)
                case h11.Data(data=data):
                    body += data
                    if len(body) > MAX_ANSWER_BYTES:
                        raise h11.RemoteProtocolError(f"the answer exceeds {MAX_ANSWER_BYTES} bytes")
                case h11.EndOfMessage():
                    return bytes(body)
                case h11.NEED_DATA:
                    connection.receive_data(await reader.read(_READ_BYTES))
                case h11.PAUSED | h11.ConnectionClosed():
                    raise h11.RemoteProtocolError("the server left HTTP")

    def _refused(self, status: int) -> None:
        hint = ". Add 'json' to search.formats in SearXNG's settings.yml" if status == 403 else ""
        logger.warning("the web search at %s failed: HTTP status %d%s", self._address.root, status, hint)
        raise SearchFailed("too_many_requests" if status == 429 else "unavailable")


def _result(page: FoundPage) -> SearchResult:
    return SearchResult(
        url=page.url,
        title=(page.title or page.url)[:MAX_TITLE_CHARS],
        snippet=(page.content or "")[:MAX_SNIPPET_CHARS],
        published=page.published,
    )
