"""Generation over HTTP: streams, disconnects, and what a response says of the response cache."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from service.app import create_app
from service.errors import EngineFailed
from service.events import Event
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.patience import PATIENCE_SECONDS
from tests.serving import RawRequest, client_of, running, settings

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
BODY = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 50}


class Gated:
    """A script that says "first ", waits for its gate, and then says "last"."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        self.started.set()
        try:
            yield "first "
            await self.gate.wait()
            yield "last"
        finally:
            self.ended.set()


def raw(path: str, *, stream: bool, **changes: object) -> RawRequest:
    return RawRequest(path, json.dumps({**BODY, "stream": stream, **changes}).encode())


def gated_app(tmp_path: Path, **changes: object) -> tuple[Starlette, ScriptedExecutor, Gated]:
    script = Gated()
    executor = ScriptedExecutor(script)
    return create_app(settings(tmp_path, **changes), executor=executor), executor, script


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_first_miss_then_hit(tmp_path: Path, path: str) -> None:
    configured = settings(tmp_path)
    async with (
        running(create_app(configured), configured) as url,
        client_of(url) as client,
    ):
        first = await client.post(path, json=BODY)
        second = await client.post(path, json=BODY)
        health = (await client.get("/health")).json()
    assert first.headers["cache-status"] == "anyclaude; fwd=uri-miss; stored"
    assert second.headers["cache-status"] == "anyclaude; hit"
    assert first.json()["id"] != second.json()["id"]
    assert {**first.json(), "id": "", "created": 0} == {**second.json(), "id": "", "created": 0}
    assert health["cache"] == {"hits": 1, "misses": 1, "total_requests": 2, "hit_rate": "50.0%", "cached_items": 1}
    assert (health["status"], health["model"], health["model_loaded"]) == ("healthy", "scripted", True)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_streamed_hit_leaves_whole_with_its_length(tmp_path: Path, path: str) -> None:
    app = create_app(settings(tmp_path))
    first, second = raw(path, stream=True), raw(path, stream=True)
    await first.run(app)
    await second.run(app)
    assert "content-length" not in first.headers
    assert [message["type"] for message in second.sent] == ["http.response.start", "http.response.body"]
    assert second.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert int(second.headers["content-length"]) == len(second.body)


@pytest.mark.parametrize("first", [CHAT, MESSAGES])
@pytest.mark.parametrize("second", [CHAT, MESSAGES])
@pytest.mark.parametrize("first_streams", [False, True])
@pytest.mark.parametrize("second_streams", [False, True])
async def test_dialects_and_streams_share_one_entry(
    tmp_path: Path, first: str, second: str, first_streams: bool, second_streams: bool
) -> None:
    executor = ScriptedExecutor()
    app = create_app(settings(tmp_path), executor=executor)
    asked, again = raw(first, stream=first_streams), raw(second, stream=second_streams)
    await asked.run(app)
    await again.run(app)
    assert len(executor.submitted) == 1
    assert asked.headers["cache-status"] == "anyclaude; fwd=uri-miss; stored"
    assert again.headers["cache-status"] == "anyclaude; hit"
    for word in (b"one", b"two", b"three"):
        assert word in again.body


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_that_goes_away_frees_its_place(tmp_path: Path, path: str, stream: bool) -> None:
    app, executor, script = gated_app(tmp_path)
    request = raw(path, stream=stream)
    running_request = asyncio.create_task(request.run(app))
    await script.started.wait()
    request.disconnect()
    await running_request
    assert (executor.running, executor.aborted) == (0, 1)
    assert (b"last" in request.body) is False


async def test_a_response_that_cannot_begin_frees_its_place(tmp_path: Path) -> None:
    app, executor, script = gated_app(tmp_path)
    request = raw(CHAT, stream=True)

    async def broken_send(message: object) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await app(request.scope, request.receive, broken_send)
    assert len(executor.submitted) == 1
    await asyncio.wait_for(script.ended.wait(), timeout=PATIENCE_SECONDS)


async def test_identical_requests_at_once_are_one_generation(tmp_path: Path) -> None:
    app, executor, script = gated_app(tmp_path)
    leader, follower = raw(CHAT, stream=True), raw(MESSAGES, stream=True)
    tasks = [asyncio.create_task(leader.run(app))]
    await leader.until(b"first ")
    tasks.append(asyncio.create_task(follower.run(app)))
    await follower.until(b"first ")
    script.gate.set()
    await asyncio.gather(*tasks)
    assert len(executor.submitted) == 1
    assert follower.headers["cache-status"] == "anyclaude; fwd=uri-miss; collapsed"
    assert b"last" in follower.body


async def test_the_leader_that_leaves_does_not_disturb_the_follower(tmp_path: Path) -> None:
    app, executor, script = gated_app(tmp_path)
    leader, follower = raw(CHAT, stream=True), raw(CHAT, stream=False)
    leading = asyncio.create_task(leader.run(app))
    await leader.until(b"first ")
    following = asyncio.create_task(follower.run(app))
    await asyncio.sleep(0)
    leader.disconnect()
    await leading
    script.gate.set()
    await following
    assert executor.aborted == 0
    assert b"first last" in follower.body


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_an_engine_that_fails_ends_the_stream_with_an_error(tmp_path: Path, path: str) -> None:
    async def fails(request: GenerationRequest) -> AsyncIterator[str | Event]:
        yield "half "
        raise EngineFailed("the engine failed")

    app = create_app(settings(tmp_path), executor=ScriptedExecutor(fails))
    streamed, whole = raw(path, stream=True), raw(path, stream=False)
    await streamed.run(app)
    await whole.run(app)
    assert streamed.status == 200
    assert b"the engine failed" in streamed.body
    assert whole.status == 500
    assert b"half" not in whole.body


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_silent_stream_is_kept_alive_in_whole_frames(tmp_path: Path, path: str) -> None:
    app, _, script = gated_app(tmp_path, keep_alive_interval_seconds=0.01)
    request = raw(path, stream=True)
    task = asyncio.create_task(request.run(app))
    await request.until(b": keep-alive\n\n" if path == CHAT else b"event: ping\n")
    script.gate.set()
    await task
    assert all(m["body"].endswith(b"\n\n") for m in request.sent[1:-1])


@pytest.mark.parametrize(
    ("directive", "statuses"),
    [
        ("no-cache", ["anyclaude; fwd=bypass; stored", "anyclaude; fwd=bypass; stored", "anyclaude; hit"]),
        ("no-store", ["anyclaude; fwd=bypass", "anyclaude; fwd=bypass", "anyclaude; fwd=uri-miss; stored"]),
    ],
)
async def test_cache_control(tmp_path: Path, directive: str, statuses: list[str]) -> None:
    app = create_app(settings(tmp_path))
    seen = []
    for headers in ({"cache-control": directive}, {"cache-control": directive}, {}):
        request = RawRequest(CHAT, json.dumps(BODY).encode(), headers=headers)
        await request.run(app)
        seen.append(request.headers["cache-status"])
    assert seen == statuses


async def test_cache_control_on_several_lines_is_one_list(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    seen = []
    for _ in range(2):
        request = RawRequest(CHAT, json.dumps(BODY).encode())
        request.scope["headers"] += [(b"cache-control", b"private"), (b"cache-control", b"no-store")]
        await request.run(app)
        seen.append(request.headers["cache-status"])
    assert seen == ["anyclaude; fwd=bypass", "anyclaude; fwd=bypass"]


async def test_only_if_cached(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    only = {"cache-control": "only-if-cached"}
    requests = [RawRequest(CHAT, json.dumps(BODY).encode(), headers=h) for h in (only, {}, only)]
    for request in requests:
        await request.run(app)
    assert [r.status for r in requests] == [504, 200, 200]
    assert requests[0].headers["cache-status"] == "anyclaude; detail=not_cached"


async def test_stop_fails_what_runs_in_its_protocol_and_frees_the_port(tmp_path: Path) -> None:
    configured = settings(tmp_path, shutdown_grace_seconds=0.2)
    script = Gated()
    app = create_app(configured, executor=ScriptedExecutor(script))
    async with client_of() as client:
        async with running(app, configured) as url:
            reading = asyncio.create_task(client.post(url + CHAT, json={**BODY, "stream": True}))
            await script.started.wait()
        response = await reading
        with pytest.raises(httpx.ConnectError):
            await client.get(url + "/health")
    assert "first" in response.text
    assert "shutting_down" in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"x-api-key": "wrong"}, 401),
        ({"authorization": "Bearer sécret"}, 401),
        ({"authorization": "Bearer secret"}, 200),
        ({"x-api-key": "secret"}, 200),
    ],
)
async def test_keys_are_enforced_where_they_are_required(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    app = create_app(settings(tmp_path, api_key="secret", require_api_key=True))
    request = RawRequest(CHAT, json.dumps(BODY).encode(), headers=headers)
    await request.run(app)
    assert request.status == status


async def test_conversations_that_are_not_kept_share_no_answer(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with (
        running(create_app(configured), configured) as url,
        client_of(url) as client,
    ):
        for message_id in ("msg_A", "msg_B"):
            thread = {"type": "continue", "previous_message_id": message_id}
            refused = await client.post(MESSAGES, json={**BODY, "thread": thread})
            assert refused.status_code == 400
            assert refused.json()["error"]["details"]["error_code"] == "thread_unsupported_request"


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_field_that_nobody_knows_keeps_answers_apart_and_is_named_once(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    configured = settings(tmp_path)
    async with (
        running(create_app(configured), configured) as url,
        client_of(url) as client,
    ):
        statuses = [
            (await client.post(path, json={**BODY, "novel": value})).headers["cache-status"] for value in (1, 2, 1)
        ]
    assert statuses == ["anyclaude; fwd=uri-miss; stored"] * 2 + ["anyclaude; hit"]
    (line,) = [record.getMessage() for record in caplog.records if "novel" in record.getMessage()]
    assert "is not known here" in line


async def test_a_tool_that_nobody_can_run_is_left_out_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configured = settings(tmp_path)
    body = {**BODY, "tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}
    async with (
        running(create_app(configured), configured) as url,
        client_of(url) as client,
    ):
        statuses = [(await client.post(MESSAGES, json={**body, "top_k": k})).status_code for k in (1, 2)]
    assert statuses == [200, 200]
    (line,) = [record.getMessage() for record in caplog.records if "code_execution" in record.getMessage()]
    assert "left out" in line


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(("path", "part"), [(CHAT, PICTURE), (MESSAGES, IMAGE)])
@pytest.mark.parametrize("refuse", [False, True])
async def test_media_are_named_in_the_prompt_or_refused(
    tmp_path: Path, path: str, part: object, refuse: bool, caplog: pytest.LogCaptureFixture
) -> None:
    configured = settings(tmp_path, refuse_media=refuse)
    seen: list[str] = []

    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        seen.append(request.messages[0].content)
        yield "ok"

    app = create_app(configured, executor=ScriptedExecutor(script))
    asked = {**BODY, "messages": [{"role": "user", "content": [{"type": "text", "text": "See:"}, part]}]}
    async with (
        running(app, configured) as url,
        client_of(url) as client,
    ):
        statuses = [(await client.post(path, json=asked)).status_code for _ in range(2)]
        counted = (await client.get("/stats")).json()["unread_media"]
        metrics = (await client.get("/metrics")).text
    assert counted == (0 if refuse else 2)
    assert f"anyclaude_unread_media_total {counted}.0" in metrics
    assert statuses == [400, 400] if refuse else [200, 200]
    if not refuse:
        assert seen == ["See:\n[image (image/png, 3 bytes): this model reads text only and cannot see it]"]
        lines = [record for record in caplog.records if "a line of text stands for each" in record.getMessage()]
        assert len(lines) == 1
