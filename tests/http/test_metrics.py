"""`GET /metrics`: after known requests, known numbers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.applications import Starlette

from service.app import create_app
from service.cli.stats_view import TROUBLES
from service.errors import EngineFailed
from service.events import Event
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from service.tallies import CallTally, DraftTally, StateTally
from tests.serving import RawRequest, settings

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BODY = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 50}
MODEL = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "anyclaude", "gen_ai_request_model": "scripted"}


async def ask(app: Starlette, path: str = CHAT, headers: dict[str, str] | None = None, **changes: object) -> int:
    request = RawRequest(path, json.dumps({**BODY, **changes}).encode(), headers=headers)
    await request.run(app)
    return request.status


async def scrape(app: Starlette) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    request = RawRequest("/metrics", method="GET")
    await request.run(app)
    assert request.status == 200
    families = parse(request.body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def sample(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def requests(dialect: str, status: str, outcome: str, stream: str, error: str = "") -> dict[str, str]:
    return {"dialect": dialect, "status": status, "outcome": outcome, "stream": stream, "error": error}


async def test_requests_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        yield "half "
        if "fail" in request.messages[-1].content:
            raise EngineFailed("the engine failed")

    app = create_app(settings(tmp_path), executor=ScriptedExecutor(script))
    failing = [{"role": "user", "content": "fail"}]
    await ask(app)
    await ask(app)
    await ask(app, MESSAGES, stream=True)
    await ask(app, headers={"cache-control": "no-cache"})
    await ask(app, messages=failing)
    await ask(app, messages=failing, stream=True)
    await ask(app, temperature=9)
    samples = await scrape(app)
    expected = [
        requests("openai_chat", "200", "miss", "false"),
        requests("openai_chat", "200", "hit", "false"),
        requests("anthropic_messages", "200", "hit", "true"),
        requests("openai_chat", "200", "bypass", "false"),
        requests("openai_chat", "500", "miss", "false", "engine_failed"),
        requests("openai_chat", "200", "miss", "true", "engine_failed"),
        requests("openai_chat", "400", "none", "false", "invalid_value"),
    ]
    found = {labels: value for (name, labels), value in samples.items() if name == "anyclaude_requests_total"}
    assert found == {frozenset(labels.items()): 1 for labels in expected}


async def test_requests_and_the_response_cache_count_the_same(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    refused = [{"role": "user", "content": "word " * 200_000}]
    statuses = [
        await ask(app, headers={"cache-control": "only-if-cached"}),
        await ask(app, messages=refused),
        await ask(app),
        await ask(app),
        await ask(app, headers={"cache-control": "no-store"}),
    ]
    assert statuses == [504, 400, 200, 200, 200]
    samples = await scrape(app)
    for outcome in ("hit", "miss", "collapsed", "bypass"):
        answered = sum(
            value
            for (name, labels), value in samples.items()
            if name == "anyclaude_requests_total" and ("outcome", outcome) in labels
        )
        assert sample(samples, "anyclaude_response_cache_requests_total", outcome=outcome) == answered, outcome


async def test_a_client_that_left_has_no_status(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    request = RawRequest(CHAT)
    request.disconnect()
    await request.run(app)
    labels = requests("openai_chat", "none", "none", "false", "client_gone")
    assert sample(await scrape(app), "anyclaude_requests_total", **labels) == 1


async def test_tokens_and_response_cache(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    for _ in range(3):
        await ask(app)
    await ask(app, headers={"cache-control": "no-store"})
    samples = await scrape(app)
    for name in ("anyclaude_prompt_tokens_total", "anyclaude_completion_tokens_total"):
        assert [sample(samples, name, outcome=o) for o in ("miss", "hit", "bypass")] == [3, 6, 3]
    outcomes = {o: sample(samples, "anyclaude_response_cache_requests_total", outcome=o) for o in ("hit", "miss")}
    assert outcomes == {"hit": 2, "miss": 1}
    assert sample(samples, "anyclaude_response_cache_requests_total", outcome="bypass") == 1
    assert sample(samples, "anyclaude_response_cache_items") == 1
    assert sample(samples, "anyclaude_response_cache_stored_total") == 1
    assert sample(samples, "anyclaude_response_cache_store_failures_total") == 0


async def test_times_have_the_names_of_the_conventions(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    await ask(app, stream=True)
    await ask(app, stream=True)
    await ask(app)
    samples = await scrape(app)
    duration = {**MODEL, "error_type": ""}
    assert sample(samples, "gen_ai_server_request_duration_seconds_count", **duration, outcome="miss") == 1
    assert sample(samples, "gen_ai_server_request_duration_seconds_count", **duration, outcome="hit") == 2
    seconds = sample(samples, "gen_ai_server_request_duration_seconds_sum", **duration, outcome="miss")
    assert seconds is not None
    assert 0 < seconds < 60
    for name in ("time_to_first_token", "time_per_output_token"):
        assert sample(samples, f"gen_ai_server_{name}_seconds_count", **MODEL) == 1


async def test_the_engine_is_read_at_the_scrape(tmp_path: Path) -> None:
    executor = ScriptedExecutor()
    app = create_app(settings(tmp_path), executor=executor)
    before = await scrape(app)
    assert sample(before, "anyclaude_engine_state", state="healthy") == 1
    assert sample(before, "anyclaude_prefix_cache_bytes") is None
    executor.state = ExecutorStatus(
        state="degraded",
        memory_bytes=9,
        prefix_cache_bytes=7,
        engine_restarts=2,
        tool_calls=CallTally(calls=6, **{fault: number for number, fault in enumerate(TROUBLES)}),
        drafts=DraftTally(drafted=20, accepted=15),
        states=StateTally(turns=2, kept_bytes=100),
    )
    executor.running, executor.waiting = 2, 5
    after = await scrape(app)
    read = {
        "anyclaude_sequences_running": 2,
        "anyclaude_sequences_waiting": 5,
        "anyclaude_engine_memory_bytes": 9,
        "anyclaude_prefix_cache_bytes": 7,
        "anyclaude_engine_restarts_total": 2,
        "anyclaude_tool_calls_total": 6,
        "anyclaude_prefix_cache_turns_total": 2,
        "anyclaude_prefix_cache_kept_bytes_total": 100,
        "anyclaude_drafted_tokens_total": 20,
        "anyclaude_accepted_draft_tokens_total": 15,
    }
    assert {name: sample(after, name) for name in read} == read
    faults = {fault: sample(after, "anyclaude_answer_faults_total", fault=fault) for fault in TROUBLES}
    assert faults == {fault: number for number, fault in enumerate(TROUBLES)}
    states = {
        s: sample(after, "anyclaude_engine_state", state=s) for s in ("loading", "healthy", "degraded", "unhealthy")
    }
    assert states == {"loading": 0, "healthy": 0, "degraded": 1, "unhealthy": 0}


async def test_two_apps_share_nothing(tmp_path: Path) -> None:
    first, second = create_app(settings(tmp_path)), create_app(settings(tmp_path))
    await ask(first)
    assert not [name for name, _ in await scrape(second) if name == "anyclaude_requests_total"]


async def test_openmetrics_for_those_who_ask(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    await ask(app, stream=True)
    request = RawRequest("/metrics", method="GET", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    await request.run(app)
    assert request.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(request.body.decode())}
    assert families["anyclaude"].samples[0].labels["model"] == "scripted"
    assert families["anyclaude_requests"].type == "counter"


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"authorization": "Bearer key"}, 200)]
)
async def test_a_key_is_needed_where_keys_are_required(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    app = create_app(msgspec.structs.replace(settings(tmp_path), require_api_key=True, api_key="key"))
    request = RawRequest("/metrics", method="GET", headers=headers)
    await request.run(app)
    assert request.status == status
