"""`/cache` over HTTP: what is stored, and emptying every tier of the running server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from cache_backends import CacheBackend, CacheUnavailable, open_backend
from cache_backends.memory import MemoryBackend
from service.app import create_app
from tests.serving import RawRequest, client_of, running, settings

CHAT = "/v1/chat/completions"


class BrokenBackend(MemoryBackend):
    async def clear(self) -> int:
        raise CacheUnavailable("the disk is gone")

    async def delete(self, key: str) -> bool:
        raise CacheUnavailable("the disk is gone")


@asynccontextmanager
async def served(tmp_path: Path, cache: CacheBackend | None = None) -> AsyncIterator[httpx.AsyncClient]:
    configured = settings(tmp_path)
    app = create_app(configured, cache=cache)
    async with running(app, configured) as url, client_of(url) as client:
        yield client


async def ask(client: httpx.AsyncClient, text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}]}
    return (await client.post(CHAT, json=body)).headers["cache-status"].removeprefix("anyclaude; ")


async def test_answers_are_listed_without_their_content(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        for text in ("zanzibar", "zanzibar", "quokka quokka"):
            await ask(client, text)
        response = await client.get("/cache")
    assert response.headers["cache-control"] == "no-store"
    assert "quokka" not in response.text
    listed = response.json()
    assert listed["complete"] is True
    assert listed["store"]["items"] == 2
    newest, oldest = listed["answers"]
    assert (newest["hits"], newest["usage"]["completion_tokens"], newest["ttl"]) == (0, 2, None)
    assert (oldest["hits"], oldest["usage"]["completion_tokens"]) == (1, 1)
    assert newest["stored_at"] >= oldest["stored_at"]
    assert sum(answer["bytes"] for answer in listed["answers"]) < listed["store"]["bytes"]


async def test_a_question_is_shown_at_debug_level_2_only(tmp_path: Path) -> None:
    for level in (1, 2):
        configured = settings(tmp_path, debug_level=level)
        async with running(create_app(configured), configured) as url, client_of(url) as client:
            await ask(client, "\n  zanzibar " + "quokka " * 50 + "\nsecond line")
            (answer,) = (await client.get("/cache")).json()["answers"]
        assert answer["question"].startswith("zanzibar quokka") is (level == 2)
        assert len(answer["question"]) <= 100


async def test_a_limit_is_kept_and_checked(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        for text in ("one", "two", "three"):
            await ask(client, text)
        listed = (await client.get("/cache?limit=2")).json()
        assert (len(listed["answers"]), listed["complete"]) == (2, False)
        for limit in ("0", "-1", "x", "999999999999", "%C2%B2", "0" * 11 + "1" * 4_401):
            refused = await client.get(f"/cache?limit={limit}")
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


async def test_one_answer_is_shown_and_removed(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        await ask(client, "zanzibar")
        key = (await client.get("/cache")).json()["answers"][0]["key"]
        completion = (await client.get(f"/cache/{key}")).json()["completion"]
        assert completion["choices"][0]["parts"] == [{"type": "text", "text": "zanzibar"}]
        assert (await client.delete(f"/cache/{key}")).json() == {"key": key, "removed": 1}
        for method in ("GET", "DELETE"):
            gone = await client.request(method, f"/cache/{key}")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "answer_not_found")
        assert await ask(client, "zanzibar") == "fwd=uri-miss; stored"


async def test_clearing_reaches_every_tier(tmp_path: Path) -> None:
    async with served(tmp_path, open_backend(("memory://", f"disk://{tmp_path}/store"))) as client:
        await ask(client, "zanzibar")
        assert await ask(client, "zanzibar") == "hit"
        assert (await client.delete("/cache")).json() == {"removed": 1}
        listed = (await client.get("/cache")).json()
        assert [tier["items"] for tier in listed["store"]["tiers"]] == [0, 0]
        assert (await ask(client, "zanzibar")).startswith("fwd=uri-miss")  # the disk may be slow


async def test_a_store_that_fails_is_reported(tmp_path: Path) -> None:
    async with served(tmp_path, BrokenBackend()) as client:
        for path in ("/cache", "/cache/anything"):
            failed = await client.delete(path)
            assert (failed.status_code, failed.json()["error"]["code"]) == (503, "store_unavailable")
            assert "the disk is gone" in failed.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/cache"), ("DELETE", "/cache"), ("GET", "/cache/x"), ("DELETE", "/cache/x")]
)
async def test_it_needs_a_key_if_keys_are_required(tmp_path: Path, method: str, path: str) -> None:
    request = RawRequest(path, method=method)
    await request.run(create_app(settings(tmp_path, require_api_key=True)))
    assert (request.status, json.loads(request.body)["error"]["code"]) == (401, "invalid_api_key")
