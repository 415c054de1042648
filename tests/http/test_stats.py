"""`GET /stats`: what the dashboard and `anyclaude stats` show."""

import json
from pathlib import Path

import msgspec
import pytest

from service.app import create_app
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.settings import Settings
from service.telemetry.stats import Stats
from tests.serving import RawRequest, settings

SECRET = "zanzibar quokka xylophone"
BODY = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 50}


async def read(configured: Settings, executor: ScriptedExecutor, requests: int) -> tuple[Stats, bytes]:
    app = create_app(configured, executor=executor)
    for _ in range(requests):
        await RawRequest("/v1/chat/completions", json.dumps(BODY).encode()).run(app)
    request = RawRequest("/stats", method="GET")
    await request.run(app)
    assert request.headers["cache-control"] == "no-store"
    return msgspec.json.decode(request.body, type=Stats), request.body


async def test_what_happened_is_told(tmp_path: Path) -> None:
    executor = ScriptedExecutor()
    executor.state = ExecutorStatus(state="ready", memory_bytes=5, prefix_cache_bytes=3, engine_restarts=1)
    stats, _ = await read(settings(tmp_path, max_concurrency=3), executor, 3)
    assert (stats.status, stats.model.id, stats.engine.max_concurrency) == ("healthy", "scripted", 3)
    cache = stats.cache
    assert (cache.hits, cache.misses, cache.total_requests, cache.hit_rate, cache.stored) == (2, 1, 3, "66.7%", 1)
    assert (stats.memory.engine_bytes, stats.memory.prefix_cache_bytes, stats.engine.engine_restarts) == (5, 3, 1)
    assert stats.memory.peak_bytes > 1024**2
    assert [sum(stats.timeline.outcomes[kind]) for kind in ("hit", "miss")] == [2, 1]
    assert (stats.latency.hit.answers, stats.latency.miss.answers) == (2, 1)
    assert [request.outcome for request in stats.recent] == ["hit", "hit", "miss"]
    assert (stats.recent[0].prompt_tokens, stats.recent[0].completion_tokens) == (3, 3)
    assert abs(stats.recent[0].came - stats.now) < 60


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
