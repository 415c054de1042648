import re

import pytest

from service.dialects.base import WebSearchTool
from service.generation import SearchResult
from service.web_search.domains import is_wanted
from service.web_search.searxng import MAX_QUERY_CHARS, SearchFailed, SearxngServer
from tests.web_search.stand_in import PAGES, Respond, closes, hangs, never_ends, search_engine, sends

ANY = WebSearchTool(name="web_search")


async def test_pages_are_found() -> None:
    async with search_engine(sends()) as engine:
        found = await SearxngServer(engine.url).search("capital & towns", ANY)
    assert engine.queries == ["capital & towns"]
    assert found == (
        SearchResult("https://www.bern.example/old-town", "Bern", "The capital.", "2026-01-02"),
        SearchResult("https://zurich.example/", "Zurich"),
    )


async def test_the_engine_is_asked_for_the_allowed_domains() -> None:
    async with search_engine(sends()) as engine:
        tool = WebSearchTool(name="web_search", allowed_domains=("bern.example", "geneva.example"))
        found = await SearxngServer(engine.url).search("towns", tool)
    assert engine.queries == ["towns site:bern.example OR site:geneva.example"]
    assert [page.title for page in found] == ["Bern"]


async def test_as_many_domains_are_named_as_a_url_holds() -> None:
    domains = ("bern.example", *(f"host-{number}.example" for number in range(6000)))
    async with search_engine(sends()) as engine:
        found = await SearxngServer(engine.url).search("towns", WebSearchTool(name="s", allowed_domains=domains))
    assert engine.queries[0].startswith("towns site:bern.example OR site:host-0.example OR ")
    assert len(engine.queries[0]) < 2100
    assert [page.title for page in found] == ["Bern"]


async def test_a_domain_that_is_longer_than_a_url_is_not_named() -> None:
    async with search_engine(sends()) as engine:
        tool = WebSearchTool(name="s", allowed_domains=("a" * 100_000, "bern.example"))
        await SearxngServer(engine.url).search("towns", tool)
    assert engine.queries == ["towns site:bern.example"]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with search_engine(sends()) as engine:
        assert await SearxngServer(engine.url).search("towns", ANY)


BAD: dict[str, tuple[Respond, str]] = {
    "forbidden": (sends(status="403 Forbidden"), "unavailable"),
    "too many": (sends(status="429 Too Many Requests"), "too_many_requests"),
    "redirect": (sends(status="302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "unavailable"),
    "page": (sends(b"<html>"), "unavailable"),
    "other JSON": (sends(b'{"results":[{"title":"no address"}]}'), "unavailable"),
    "deep JSON": (sends(b'{"results":' + b"[" * 100_000), "unavailable"),
    "surrogate": (sends(rb'{"results":[{"url":"http://a/","title":"\ud800"}]}'), "unavailable"),
    "cut": (sends(PAGES, headers="Content-Length: 9\r\n"), "unavailable"),
    "nothing": (closes, "unavailable"),
    "other protocol": (sends(status="101 Switching Protocols", headers="Upgrade: x\r\n"), "unavailable"),
    "hang": (hangs, "unavailable"),
    "no end": (never_ends, "unavailable"),
}


@pytest.mark.parametrize(("respond", "code"), BAD.values(), ids=list(BAD))
async def test_a_failed_search_has_a_code(respond: Respond, code: str) -> None:
    seconds = 0.5 if respond in (hangs, never_ends) else 60.0
    async with search_engine(respond) as engine:
        with pytest.raises(SearchFailed, match=re.escape(code)):
            await SearxngServer(engine.url, deadline_seconds=seconds).search("towns", ANY)


async def test_no_server_and_long_queries_have_a_code() -> None:
    async with search_engine(sends()) as engine:
        with pytest.raises(SearchFailed, match="query_too_long"):
            await SearxngServer(engine.url).search("x" * (MAX_QUERY_CHARS + 1), ANY)
    with pytest.raises(SearchFailed, match="unavailable"):
        await SearxngServer(engine.url).search("towns", ANY)


@pytest.mark.parametrize(
    ("url", "domain", "inside"),
    [
        ("https://bern.example/x", "bern.example", True),
        ("https://www.Bern.example/x", "Bern.Example", True),
        ("https://notbern.example/x", "bern.example", False),
        ("https://bern.example/blog/x", "bern.example/blog", True),
        ("https://bern.example/blogs", "bern.example/blog", False),
        ("https://bern.example", "bern.example/", True),
    ],
)
def test_a_domain_includes_its_subdomains_and_may_have_a_path(url: str, domain: str, inside: bool) -> None:
    assert is_wanted(url, WebSearchTool(name="s", allowed_domains=(domain,))) is inside
    assert is_wanted(url, WebSearchTool(name="s", blocked_domains=(domain,))) is not inside


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "http://[", "bern.example"])
def test_only_web_pages_are_results(url: str) -> None:
    assert not is_wanted(url, ANY)
