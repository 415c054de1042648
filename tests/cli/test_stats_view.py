"""What `anyclaude stats` shows, and on how wide a screen."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from service.app import create_app
from service.cli.stats_view import TROUBLES, view
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.tallies import CallTally
from service.telemetry.activity import RecentRequest
from service.telemetry.stats import Stats
from tests.serving import RawRequest, settings


async def stats_of(tmp_path: Path, executor: ScriptedExecutor) -> Stats:
    request = RawRequest("/stats", method="GET")
    await request.run(create_app(settings(tmp_path), executor=executor))
    return msgspec.json.decode(request.body, type=Stats)


def shown(stats: Stats, width: int) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(view(stats, "http://127.0.0.1:8081", recent=10, width=width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_every_fault_has_a_name_in_the_terminal_and_on_the_dashboard() -> None:
    named = re.findall(r"^  (\w+): \[", (files("service.dashboard") / "app.js").read_text(), re.MULTILINE)
    assert {*TROUBLES} == {*named} == {*CallTally.__struct_fields__} - {"calls"}


@pytest.mark.parametrize(
    ("troubles", "said"),
    [
        ({}, ""),
        ({"engine_restarts": 1}, ", 1 engine restart"),
        ({"engine_restarts": 2, "tool_calls": CallTally(repaired=1)}, ", 2 engine restarts, 1 repair of tool calls"),
        ({"tool_calls": CallTally(cut=1, broken=1)}, ", 1 tool call cut off, 1 unreadable tool call"),
        (
            {"tool_calls": CallTally(unknown=3, mismatched=1200)},
            ", 3 calls of unknown tools, 1,200 tool calls against their schema",
        ),
    ],
)
async def test_trouble_is_told_where_there_is_some(tmp_path: Path, troubles: dict[str, Any], said: str) -> None:
    executor = ScriptedExecutor()
    executor.state = ExecutorStatus(state="healthy", **troubles)
    lines = shown(await stats_of(tmp_path, executor), 300)
    assert lines[2] == f"Generating      0 running of 2, 0 waiting of 64{said}"


LEFT = RecentRequest(
    request_id="r",
    came=1_800_000_000.0,
    dialect="anthropic_messages",
    status=200,
    stream=True,
    outcome="miss",
    error="client_gone",
    prompt_tokens=19_846,
    completion_tokens=1_234,
    cached_tokens=0,
    first_event_seconds=0.00478,
    total_seconds=754.0,
)
REFUSED = msgspec.structs.replace(LEFT, outcome=None, error="context_length_exceeded", status=400)


@pytest.mark.parametrize(
    ("width", "header", "outcome"),
    [
        (120, "Time Outcome Total First Prompt Answer API", "400 context_length_exceeded"),
        (80, "Time Outcome Total First Prompt Answer API", "400 context_len"),
        (79, "Time Outcome Total First Prompt Answer", "400 context_length"),
        (60, "Time Outcome Total Prompt Answer", "400 context_length"),
    ],
)
async def test_a_narrow_screen_cuts_no_figure(tmp_path: Path, width: int, header: str, outcome: str) -> None:
    stats = msgspec.structs.replace(await stats_of(tmp_path, ScriptedExecutor()), recent=[LEFT, REFUSED])
    slots = len(stats.timeline.generated_tokens)
    outcomes = stats.timeline.outcomes | {"miss": [0] * (slots - 1) + [8]}
    stats = msgspec.structs.replace(stats, timeline=msgspec.structs.replace(stats.timeline, outcomes=outcomes))
    lines = shown(stats, width)
    assert max(map(len, lines)) <= width
    assert lines[7].startswith("Requests")
    assert lines[7].endswith("█|")
    assert lines[8].strip() == "8 misses in 5 min"
    assert lines[10].split() == header.split()
    assert outcome in lines[12]
    for line in lines[11:]:
        assert re.match(r"\d\d:\d\d:\d\d  ", line)
        assert {"19,846", "1,234"} < set(line.split())
        assert "12 min 34 s" in line
        assert ("4.78 ms" in line) is ("First" in header)
        assert width < 80 or "Anthropic" in line
    assert "miss, client le" in lines[11]


async def test_prompts_that_were_read_again_have_a_line(tmp_path: Path) -> None:
    reread = msgspec.structs.replace(
        LEFT, prompt_tokens=41_510, cached_tokens=41_200, reread="first difference: system changed"
    )
    stats = msgspec.structs.replace(await stats_of(tmp_path, ScriptedExecutor()), recent=[LEFT, reread])
    lines = [line for line in shown(stats, 100) if "first difference" in line]
    assert [line[10:] for line in lines] == ["41,200 tokens reused, 310 read: first difference: system changed"]
