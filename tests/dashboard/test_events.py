"""The page's files, and the events that keep it up to date, as messages of ASGI."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from starlette.applications import Starlette

from service.app import create_app
from service.dashboard import ASSETS, read_asset
from service.endpoints.dashboard import MAX_LISTENERS
from tests.patience import PATIENCE_SECONDS
from tests.serving import RawRequest, client_of, running, settings

EVENTS = "/dashboard/events"
CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()


async def get(app: Starlette, path: str, method: str = "GET") -> RawRequest:
    request = RawRequest(path, method=method)
    await request.run(app)
    return request


def listen(app: Starlette) -> tuple[RawRequest, asyncio.Task[None]]:
    request = RawRequest(EVENTS, method="GET")
    return request, asyncio.create_task(request.run(app))


async def test_events_hold_the_statistics_of_their_moment(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    listener, listening = listen(app)
    await listener.until(b'"total_requests":0')
    await RawRequest(CHAT, BODY).run(app)
    await listener.until(b'"total_requests":1')
    listener.disconnect()
    await listening
    assert listener.headers["content-type"] == "text/event-stream; charset=utf-8"
    frames = listener.body.split(b"\n\n")
    assert frames.pop() == b""
    assert all(json.loads(frame.removeprefix(b"data: "))["status"] == "healthy" for frame in frames)


async def test_listeners_are_bounded_and_leave_their_place(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    listeners = [listen(app) for _ in range(MAX_LISTENERS)]
    for listener, _ in listeners:
        await listener.until(b"data: ")
    refused = await get(app, EVENTS)
    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert "Close one of them" in json.loads(refused.body)["error"]["message"]
    leaving, left = listeners[0]
    leaving.disconnect()
    await left
    next_listener, listening = listen(app)
    await next_listener.until(b"data: ")
    assert next_listener.status == 200
    for listener, _ in [*listeners[1:], (next_listener, listening)]:
        listener.disconnect()
    await asyncio.gather(listening, *(task for _, task in listeners))


async def test_a_head_request_ends(tmp_path: Path) -> None:
    request = await get(create_app(settings(tmp_path)), EVENTS, "HEAD")
    assert (request.status, request.body) == (200, b"")


async def test_a_listener_does_not_hold_up_the_shutdown(tmp_path: Path) -> None:
    configured = settings(tmp_path, shutdown_grace_seconds=600.0)
    app = create_app(configured)
    async with asyncio.timeout(PATIENCE_SECONDS), client_of() as client:
        async with running(app, configured) as url:
            stream = client.stream("GET", url + EVENTS)
            response = await stream.__aenter__()
            chunks = response.aiter_bytes()
            assert (await anext(chunks)).startswith(b"data: ")
        await stream.__aexit__(None, None, None)


@pytest.mark.parametrize("path", ["/dashboard", *(f"/dashboard/{name}" for name in ASSETS)])
async def test_files_are_served_under_a_strict_policy(tmp_path: Path, path: str) -> None:
    response = await get(create_app(settings(tmp_path, require_api_key=True)), path)
    name = path.removeprefix("/dashboard/") if path != "/dashboard" else "page.html"
    assert response.status == 200
    assert response.body == read_asset(name)
    assert response.headers["content-type"].startswith(ASSETS[name])
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize("path", ["/dashboard/nothing.js", "/dashboard/__init__.py", "/dashboard/..%2f__init__.py"])
async def test_nothing_else_is_served(tmp_path: Path, path: str) -> None:
    assert (await get(create_app(settings(tmp_path)), path)).status == 404


def test_the_files_hold_nothing_that_the_policy_forbids() -> None:
    page = read_asset("page.html").decode()
    assert not re.search(r"<style|style=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page)
    for name in ASSETS:
        text = read_asset(name).decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
