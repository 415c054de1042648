"""`GET /stats`: what the dashboard and `anyclaude stats` show."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from service.app import Service, create_app
from service.events import Event
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from service.settings import Settings
from service.tallies import StateTally, Tuning
from service.telemetry.stats import Stats
from tests.serving import RawRequest, settings

CHAT = "/v1/chat/completions"
SECRET = "zanzibar quokka xylophone"
BODY = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 50}


async def read(configured: Settings, executor: ScriptedExecutor, requests: int) -> tuple[Stats, bytes]:
    app = create_app(configured, executor=executor)
    for _ in range(requests):
        await RawRequest(CHAT, json.dumps(BODY).encode()).run(app)
    request = RawRequest("/stats", method="GET")
    await request.run(app)
    assert request.headers["cache-control"] == "no-store"
    return msgspec.json.decode(request.body, type=Stats), request.body


async def snapshot(app: Service) -> Stats:
    request = RawRequest("/stats", method="GET")
    await request.run(app)
    return msgspec.json.decode(request.body, type=Stats)


async def test_what_happened_is_told(tmp_path: Path) -> None:
    executor = ScriptedExecutor()
    states = StateTally(turns=2, kept_bytes=3)
    tuning = Tuning(chunk_tokens=256, lanes=2, guesses={"PromptLookup": 4}, file_tokens=5)
    executor.state = ExecutorStatus(
        state="healthy",
        memory_bytes=5,
        peak_bytes=7,
        prefix_cache_bytes=3,
        engine_restarts=1,
        states=states,
        tuning=tuning,
    )
    stats, _ = await read(settings(tmp_path, max_concurrency=3), executor, 3)
    assert (stats.status, stats.model.id, stats.engine.max_concurrency) == ("healthy", "scripted", 3)
    cache = stats.cache
    assert (cache.hits, cache.misses, cache.total_requests, cache.hit_rate, cache.stored) == (2, 1, 3, "66.7%", 1)
    assert (stats.memory.engine_bytes, stats.memory.prefix_cache_bytes, stats.engine.engine_restarts) == (5, 3, 1)
    assert (stats.engine.states, stats.engine.tuning, stats.memory.engine_peak_bytes) == (states, tuning, 7)
    assert stats.memory.peak_bytes > 1024**2
    assert [sum(stats.timeline.outcomes[kind]) for kind in ("hit", "miss")] == [2, 1]
    assert (stats.latency.hit.answers, stats.latency.miss.answers) == (2, 1)
    assert [request.outcome for request in stats.recent] == ["hit", "hit", "miss"]
    assert (stats.recent[0].prompt_tokens, stats.recent[0].completion_tokens) == (3, 3)
    assert abs(stats.recent[0].came - stats.now) < 60


async def test_what_applies_in_place_of_null_is_shown(tmp_path: Path) -> None:
    stats, _ = await read(settings(tmp_path), ScriptedExecutor(), 0)
    folder = "backends.vllm-mlx."
    assert {key for key, value in stats.settings.items() if value is None} == set(stats.unset)
    assert (stats.unset[folder + "model"], stats.unset[folder + "contextLength"]) == ("scripted", 200_000)
    assert stats.unset[folder + "sampling.topP"] == 1.0
    assert stats.unset[folder + "idleUnloadSeconds"] == "never"
    assert stats.unset[folder + "record"] == "none"


async def test_numbers_agree_while_requests_run(tmp_path: Path) -> None:
    """Two generations are under way, one client has joined one of them, one has had a hit, and one was refused."""
    go_on, writing = asyncio.Event(), asyncio.Semaphore(0)

    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        yield "one "
        if "short" not in request.messages[-1].content:
            yield "two "
            writing.release()
            await go_on.wait()

    def asking(content: str, **changes: object) -> RawRequest:
        return RawRequest(CHAT, json.dumps({"messages": [{"role": "user", "content": content}]} | changes).encode())

    app = create_app(settings(tmp_path), executor=ScriptedExecutor(script))
    for _ in range(2):
        await asking("short").run(app)
    await asking("refused", temperature=9).run(app)
    async with app.router.lifespan_context(app), asyncio.TaskGroup() as running:
        for content in ("long", "longer"):
            running.create_task(asking(content).run(app))
        for _ in range(2):
            await writing.acquire()
        running.create_task(asking("long").run(app))
        try:
            stats = await snapshot(app)
            while not stats.cache.collapsed:
                stats = await snapshot(app)
        finally:
            go_on.set()
    outcomes = {kind: sum(counts) for kind, counts in stats.timeline.outcomes.items()}
    cache = stats.cache
    assert outcomes == {"hit": 1, "collapsed": 1, "miss": 3, "bypass": 0, "failed": 1}
    assert (cache.hits, cache.collapsed, cache.misses, cache.total_requests) == (2, 1, 3, 5)
    assert (cache.hit_rate, stats.engine.running) == ("40.0%", 2)
    assert sum(stats.timeline.generated_tokens) == pytest.approx(5, abs=0.1)
    assert len(stats.recent) == 3
    assert [(r.outcome, r.written) for r in stats.requests] == [("miss", 2), ("miss", 2), ("collapsed", 2)]


@pytest.mark.parametrize("debug_level", [0, 1, 2])
async def test_nothing_of_what_was_asked_is_told(tmp_path: Path, debug_level: int) -> None:
    _, body = await read(settings(tmp_path, debug_level=debug_level), ScriptedExecutor(), 2)
    assert not [word for word in SECRET.split() if word.encode() in body]


async def test_settings_are_told_without_secrets(tmp_path: Path) -> None:
    configured = settings(tmp_path, api_key="do-not-show", cache=("redis://me:hunter2@127.0.0.1:1/0",))
    stats, body = await read(configured, ScriptedExecutor(), 0)
    assert b"do-not-show" not in body
    assert b"hunter2" not in body
    assert stats.settings["backends.vllm-mlx.apiKey"] == "(set, not shown)"
    assert stats.settings["backends.vllm-mlx.cache"] == ["redis://me:***@127.0.0.1:1/0"]
    assert stats.settings["backends.vllm-mlx.maxQueue"] == 64


@pytest.mark.parametrize("path", ["/stats", "/dashboard/events"])
async def test_a_key_is_needed_where_keys_are_required(tmp_path: Path, path: str) -> None:
    app = create_app(settings(tmp_path, require_api_key=True, api_key="key"))
    request = RawRequest(path, method="GET")
    await request.run(app)
    assert request.status == 401
    assert "error" in json.loads(request.body)
