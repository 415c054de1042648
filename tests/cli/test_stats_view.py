"""What `anyclaude stats` says of an engine in trouble."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from service.app import create_app
from service.cli.stats_view import view
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.stats import Stats
from tests.serving import RawRequest, settings


@pytest.mark.parametrize(
    ("troubles", "said"),
    [
        ({}, ""),
        ({"engine_restarts": 1}, ", 1 engine restart"),
        ({"engine_restarts": 2, "tool_call_repairs": 1}, ", 2 engine restarts, 1 repair of tool calls"),
        ({"tool_calls_cut": 1, "tool_calls_broken": 1}, ", 1 tool call cut off, 1 unreadable tool call"),
        (
            {"tool_calls_unknown": 3, "tool_calls_mismatched": 1200},
            ", 3 calls of unknown tools, 1,200 tool calls against their schema",
        ),
    ],
)
async def test_trouble_is_told_where_there_is_some(tmp_path: Path, troubles: dict[str, Any], said: str) -> None:
    executor = ScriptedExecutor()
    executor.state = ExecutorStatus(state="ready", **troubles)
    request = RawRequest("/stats", method="GET")
    await request.run(create_app(settings(tmp_path), executor=executor))
    console = Console(width=300, highlight=False)
    with console.capture() as shown:
        console.print(view(msgspec.json.decode(request.body, type=Stats), "here", recent=1))
    lines = [line.rstrip() for line in shown.get().splitlines()]
    assert lines[2] == f"Generating      0 running of 2, 0 waiting of 64{said}"
