"""Searches by SearXNG's API: `GET /search?q=...&format=json`."""

import asyncio
import logging
import ssl
from urllib.parse import urlencode

import httpx2
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
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "anyclaude"}


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
            return read_results(body, tool)
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            logger.warning("the web search at %s failed: %s", self._address.root, exc or "no answer in time")
            raise SearchFailed("unavailable") from exc

    async def _get(self, query: str) -> bytes:
        """Raises httpx2.HTTPError."""
        secure = self._address.root.startswith("https:")
        client = httpx2.AsyncClient(
            trust_env=False, timeout=None, verify=ssl.create_default_context() if secure else False
        )
        url = f"{self._address.root}/search?{query}"
        async with client, client.stream("GET", url, headers=_HEADERS) as response:
            if response.status_code != httpx2.codes.OK:
                self._refused(response.status_code)
            body = bytearray()
            async for data in response.aiter_raw():
                body += data
                if len(body) > MAX_ANSWER_BYTES:
                    raise httpx2.ReadError(f"the answer exceeds {MAX_ANSWER_BYTES} bytes")
            return bytes(body)

    def _refused(self, status: int) -> None:
        hint = ". Add 'json' to search.formats in SearXNG's settings.yml" if status == 403 else ""
        logger.warning("the web search at %s failed: HTTP status %d%s", self._address.root, status, hint)
        raise SearchFailed("too_many_requests" if status == 429 else "unavailable")


def read_results(body: bytes, tool: WebSearchTool) -> tuple[SearchResult, ...]:
    """Raises DecodeError, UnicodeError and RecursionError for a body that is no answer of SearXNG's."""
    found = msgspec.json.decode(body, type=SearchPage).results
    wanted = (page for page in found if len(page.url) <= MAX_URL_CHARS and is_wanted(page.url, tool))
    return tuple(_result(page) for page, _ in zip(wanted, range(MAX_RESULTS), strict=False))


def _result(page: FoundPage) -> SearchResult:
    return SearchResult(
        url=page.url,
        title=(page.title or page.url)[:MAX_TITLE_CHARS],
        snippet=(page.content or "")[:MAX_SNIPPET_CHARS],
        published=page.published,
    )
