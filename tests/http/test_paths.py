"""Paths as clients write them, and web pages of other origins."""

from pathlib import Path

import pytest

from service.app import create_app
from service.http.gate import settled_path
from tests.serving import client_of, running, settings

ORIGIN = "http://localhost:3000"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models/", "/v1/models"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/models/org/name/", "/v1/models/org/name"),
        ("/responses", "/v1/responses"),
        ("/health", "/health"),
        ("/health/", "/health/"),
        ("/dashboard/models", "/dashboard/models"),
        ("//chat/completions", "//chat/completions"),
        ("/", "/"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_paths_of_the_api_are_settled(path: str, expected: str) -> None:
    assert settled_path(path) == expected


async def test_clients_may_leave_v1_out_and_add_a_slash(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        for path in ("/chat/completions", "/v1/chat/completions/", "/messages", "/v1/messages/"):
            assert (await client.post(path, json=BODY)).status_code == 200, path
        assert (await client.get("/models")).json() == (await client.get("/v1/models/")).json()


async def test_a_page_of_a_named_origin_may_call(tmp_path: Path) -> None:
    configured = settings(tmp_path, allowed_origins=(ORIGIN,), require_api_key=True, api_key="key")
    preflight = {"origin": ORIGIN, "access-control-request-method": "POST",
                 "access-control-request-headers": "authorization, content-type"}  # fmt: skip
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        asked = await client.options("/v1/chat/completions", headers=preflight)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == ORIGIN
        assert "authorization" in asked.headers["access-control-allow-headers"]
        answer = await client.post(
            "/v1/chat/completions", json=BODY, headers={"origin": ORIGIN, "authorization": "Bearer key"}
        )
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "cache-status" in answer.headers["access-control-expose-headers"]
        refused = await client.post("/v1/chat/completions", json=BODY, headers={"origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
        other = await client.options("/v1/chat/completions", headers={**preflight, "origin": "http://evil.example"})
        assert (other.status_code, other.headers.get("access-control-allow-origin")) == (400, None)


async def test_no_page_may_call_by_default(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        answer = await client.get("/v1/models", headers={"origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_client_left_at_its_default_model_is_answered(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        answer = await client.post("/v1/chat/completions", json={**BODY, "model": "gpt-4o-mini"})
    assert answer.json()["model"] == "gpt-4o-mini"
