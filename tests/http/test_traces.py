"""Traces are written at debug level 2 only, whole and without keys."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette

from service.app import create_app
from tests.serving import RawRequest, settings

BODY = json.dumps({"messages": [{"role": "user", "content": "a secret plan"}], "max_tokens": 9}).encode()


async def ask(app: Starlette, path: str, **headers: str) -> RawRequest:
    request = RawRequest(path, BODY, headers={"authorization": "Bearer sk-a-long-credential-of-mine", **headers})
    async with app.router.lifespan_context(app):
        await request.run(app)
    return request


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_an_exchange_is_written_whole(tmp_path: Path, path: str) -> None:
    request = await ask(create_app(settings(tmp_path, debug_level=2)), path)
    (file,) = [file for file in (tmp_path / "traces").rglob("*") if file.is_file()]
    text = file.read_text()
    assert "a secret plan" in text
    assert request.headers["request-id" if path == "/v1/messages" else "x-request-id"] in text
    assert "sk-a-long-credential-of-mine" not in text
    assert file.stat().st_mode & 0o077 == 0


async def read(app: Starlette, name: str) -> RawRequest:
    request = RawRequest(f"/dashboard/traces/{name}", method="GET")
    await request.run(app)
    return request


async def test_a_trace_is_found_by_its_request(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, debug_level=2))
    asked = await ask(app, "/v1/chat/completions")
    found = await read(app, asked.headers["x-request-id"])
    assert json.loads(found.body)["request"]["body"] == json.loads(BODY)
    assert found.headers["cache-control"] == "no-store"
    for name in ("req_of_another", "*", "..%2F..%2Fx"):
        gone = await read(app, name)
        assert (gone.status, json.loads(gone.body)["error"]["code"]) == (404, "trace_not_found")


async def test_no_trace_is_shown_below_level_2_or_without_the_key(tmp_path: Path) -> None:
    asked = await ask(create_app(settings(tmp_path, debug_level=2)), "/v1/chat/completions")
    name = asked.headers["x-request-id"]
    below = await read(create_app(settings(tmp_path, debug_level=1)), name)
    assert (below.status, "debug level 2" in below.body.decode()) == (404, True)
    foreign = await read(create_app(settings(tmp_path, debug_level=2, require_api_key=True)), name)
    assert foreign.status == 401


async def test_a_request_that_must_not_be_stored_leaves_no_trace(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, debug_level=2))
    asked = await ask(app, "/v1/chat/completions", **{"cache-control": "max-age=x, No-Store"})
    assert (await read(app, asked.headers["x-request-id"])).status == 404
    assert list((tmp_path / "traces").iterdir()) == []


async def test_nothing_is_written_below_level_2(tmp_path: Path) -> None:
    await ask(create_app(settings(tmp_path, debug_level=1)), "/v1/chat/completions")
    assert not (tmp_path / "traces").exists()
