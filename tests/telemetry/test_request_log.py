"""What a request leaves in the log: one line, whatever the client sent, and nothing of what it asked or was told."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.app import create_app
from service.executor.base import Executor
from service.executor.scripted import PROFILE, ScriptedExecutor
from service.http.access_log import POLLED
from service.logs import configure
from service.settings import DebugLevel, LogFormat
from service.telemetry.request_log import HITS_A_SECOND, RequestLog, RequestRecord
from tests.serving import RawRequest, settings
from tests.simulation.loop import SimulatedLoop

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
CANARY = "zanzibar-quokka"
FORGED = f"{CANARY}\n2025-01-01 00:00:00.000 INFO request: forged\r\x1b[2J\x7f\x9b\u2028\u202e"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) [\w.]+: .+|  \| .+")
BODIES: dict[str, Any] = {
    "answered": {"messages": [{"role": "user", "content": FORGED}], "max_tokens": 5},
    "with a tool": {
        "messages": [{"role": "system", "content": FORGED}, {"role": "user", "content": CANARY}],
        "tools": [{"type": "function", "function": {"name": "look", "description": FORGED, "parameters": {}}}],
        "max_tokens": 5,
    },
    "streamed": {"messages": [{"role": "user", "content": FORGED}], "max_tokens": 5, "stream": True},
    "unknown model": {"model": FORGED, "messages": [{"role": "user", "content": CANARY}], "max_tokens": 5},
    "wrong role": {"messages": [{"role": FORGED, "content": CANARY}], "max_tokens": 5},
    "wrong type": {"messages": FORGED, "max_tokens": FORGED},
    "no object": [FORGED],
}


pytestmark = pytest.mark.usefixtures("logging_restored")


async def logged(
    tmp_path: Path,
    requests: list[RawRequest],
    level: DebugLevel,
    log_format: LogFormat,
    others: Mapping[str, Executor] | None = None,
) -> list[str]:
    configured = settings(tmp_path, debug_level=level, log_format=log_format)
    stream = io.StringIO()
    configure(configured, stream)
    app = create_app(configured, others=others)
    async with app.router.lifespan_context(app):
        for request in requests:
            await request.run(app)
    return stream.getvalue().split("\n")[:-1]


def hostile_requests() -> list[RawRequest]:
    headers = {"user-agent": "x\x1b[2J", "x-request-id": "forged", "cache-control": "max-age=1\x1b"}
    asked = [
        RawRequest(path, json.dumps(body).encode(), headers=extra)
        for path in (CHAT, MESSAGES)
        for body in BODIES.values()
        for extra in ({}, headers)
    ]
    return [*asked, RawRequest(CHAT, FORGED.encode()), RawRequest(f"/v1/models/{FORGED}", method="GET")]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("level", [0, 1, 2])
async def test_nothing_of_a_client_reaches_the_log(tmp_path: Path, level: DebugLevel, log_format: LogFormat) -> None:
    lines = await logged(tmp_path, hostile_requests(), level, log_format)
    text = "\n".join(lines)
    assert CANARY not in text
    assert "forged" not in text
    assert all(line.isascii() and line.isprintable() for line in lines)
    for line in lines:
        assert LINE.fullmatch(line) if log_format == "text" else isinstance(json.loads(line), dict)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_one_line_a_request(tmp_path: Path, level: DebugLevel, body: object) -> None:
    lines = await logged(tmp_path, [RawRequest(CHAT, json.dumps(body).encode())], level, "json")
    assert len([line for line in lines if json.loads(line)["logger"] == "anyclaude.request"]) == 1


async def test_the_fields_of_a_line(tmp_path: Path) -> None:
    requests = [RawRequest(MESSAGES, json.dumps({**BODIES["answered"], "stream": True}).encode()) for _ in range(2)]
    lines = await logged(tmp_path, requests, 1, "json")
    miss, hit = (fields for fields in map(json.loads, lines) if fields["logger"] == "anyclaude.request")
    assert [miss["cache"], hit["cache"]] == ["miss", "hit"]
    assert hit["request_id"] == requests[1].headers["request-id"]
    assert (hit["status"], hit["dialect"], hit["stream"]) == (200, "anthropic_messages", True)
    assert hit["model"] == "scripted"
    assert hit["completion_tokens"] == miss["completion_tokens"] > 0
    assert 0 < hit["first_event_ms"] <= hit["total_ms"]
    assert "error" not in hit


async def test_the_text_of_a_line(tmp_path: Path) -> None:
    body = json.dumps({**BODIES["answered"], "stream": True}).encode()
    miss, refused = await logged(tmp_path, [RawRequest(CHAT, body), RawRequest(CHAT, b"{}")], 0, "text")
    said = r"request: req_\w{24} openai_chat 200 miss stream in \d+\.\d ms, \d+ prompt tokens?, \d+ in the answer"
    assert re.search(said, miss)
    assert re.search(r"request: req_\w{24} openai_chat 400 missing_required_parameter in \d+\.\d ms$", refused)


async def test_the_text_names_the_model_if_there_are_several(tmp_path: Path) -> None:
    small = ScriptedExecutor(profile=msgspec.structs.replace(PROFILE, id="small"))
    bodies = [BODIES["answered"] | {"model": name} for name in ("default", "small")]
    requests = [RawRequest(CHAT, json.dumps(body).encode()) for body in bodies]
    lines = await logged(tmp_path, requests, 0, "text", others={"small": small})
    assert [re.findall(r" by (\w+) in", line) for line in lines] == [["scripted"], ["small"]]


@pytest.mark.parametrize(
    ("method", "path", "shown", "status"),
    [
        ("GET", "/health", "/health", 200),
        ("GET", "/stats", "/stats", 200),
        ("GET", "/v1/models", "/v1/models", 200),
        ("GET", f"/v1/models/{CANARY}", "/v1/models/{id:path}", 404),
        ("POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens", 400),
        ("GET", f"/{CANARY}", "no path of ours", 404),
        (CANARY, "/health", "/health", 405),
    ],
)
async def test_a_request_that_generates_nothing_has_its_line_too(
    tmp_path: Path, method: str, path: str, shown: str, status: int
) -> None:
    request = RawRequest(path, b"{}", method=method)
    (line,) = map(json.loads, await logged(tmp_path, [request], 1, "json"))
    assert (line["logger"], line["path"], line["status"]) == ("anyclaude.access", shown, status)
    assert line["request_id"].startswith("req_")
    assert CANARY not in str(line)
    quiet = await logged(tmp_path, [RawRequest(path, b"{}", method=method)], 0, "json")
    assert len(quiet) == (0 if shown in POLLED else 1)


async def test_a_request_that_is_refused_before_it_is_routed_has_its_line(tmp_path: Path) -> None:
    request = RawRequest(CHAT, b"{}", headers={"host": "evil.example"})
    (line,) = map(json.loads, await logged(tmp_path, [request], 0, "json"))
    assert (line["logger"], line["path"], line["status"]) == ("anyclaude.access", "no path of ours", 403)
    assert "evil" not in str(line)


@pytest.mark.parametrize("log_format", ["text", "json"])
@given(text=st.text())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_is_logged_is_one_printable_line(tmp_path: Path, log_format: LogFormat, text: str) -> None:
    stream = io.StringIO()
    configure(settings(tmp_path, log_format=log_format), stream)
    logging.getLogger("anyclaude.request").info("%s", text, extra={"given": text})
    (line,) = stream.getvalue().split("\n")[:-1]
    assert len(line.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line)
    if log_format == "json":
        assert json.loads(line)["given"] == text


def test_hits_beyond_twenty_a_second_share_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "anyclaude.request")
    log = RequestLog(HITS_A_SECOND)

    async def answer() -> None:
        for second in range(2):
            for number in range(HITS_A_SECOND + 5 - 4 * second):
                log.observe(RequestRecord(request_id=f"hit {number}", dialect="d", started=0, outcome="hit"))
            log.observe(RequestRecord(request_id="missed", dialect="d", started=0, outcome="miss"))
            await asyncio.sleep(1.5)

    SimulatedLoop(Random(0)).run(answer())
    lines = [" ".join(record.getMessage().split()[:2]) for record in caplog.records]
    hits = [f"hit {number}" for number in range(HITS_A_SECOND)]
    assert lines == [*hits, "missed d", "5 more", *hits, "missed d", "1 more"]


async def test_the_first_difference_to_the_last_prompt_is_named(tmp_path: Path) -> None:
    def asked(*names: str) -> RawRequest:
        tools = [{"name": name, "description": CANARY, "input_schema": {"type": "object"}} for name in names]
        turns = [{"role": "user", "content": CANARY}]
        return RawRequest(MESSAGES, json.dumps({"messages": turns, "tools": tools, "max_tokens": 5}).encode())

    lines = await logged(tmp_path, [asked("Read"), asked("Read", "mcp__x"), asked("Read", "mcp__x")], 0, "text")
    first, second, hit = (line for line in lines if " anthropic_messages 200 " in line)
    assert "difference" not in first + hit
    assert re.search(r", 0 tokens reused, \d+ read \(first difference: tools\[1\] `mcp__x` is new\), ", second)
    assert CANARY not in "".join(lines)
