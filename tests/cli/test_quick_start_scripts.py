"""The two scripts of the quick start, against real servers: what they show, and that they fail loudly."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from service.app import create_app
from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.scripted import Script, ScriptedExecutor
from service.generation import GenerationRequest
from tests.cli.terminal import Terminal
from tests.patience import PATIENCE_SECONDS
from tests.serving import running, settings

SCRIPTS = Path(__file__).parents[2] / "scripts" / "test"


async def slow(request: GenerationRequest) -> AsyncIterator[str | Event]:
    await asyncio.sleep(0.3)
    yield "Paris"


async def calls_the_tool(request: GenerationRequest) -> AsyncIterator[str | Event]:
    yield ToolCallStarted(0, "call_0", "get_weather")
    yield ToolCallDelta(0, '{"city": "Paris"}')


async def talks_instead(request: GenerationRequest) -> AsyncIterator[str | Event]:
    yield "Sunny, I suppose."


async def run_against(script: str, play: Script, tmp_path: Path, **changes: object) -> tuple[int, str, str]:
    """The exit code and both outputs of a script against a server that plays `play`."""
    configured = settings(tmp_path, **changes)
    async with running(create_app(configured, executor=ScriptedExecutor(play)), configured) as url:
        process = await asyncio.create_subprocess_exec(
            str(SCRIPTS / script),
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "VLLM_MLX_URL": f"{url}/v1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_cache_script_shows_the_speed_up(tmp_path: Path) -> None:
    code, out, err = await run_against("test-vllm-mlx-cache.sh", slow, tmp_path)
    assert (code, err) == (0, "")
    assert "fwd=uri-miss; stored" in out
    assert "(anyclaude; hit)" in out
    assert "Answer:   Paris" in out
    assert "\u2713 The response cache works: " in out


async def test_the_cache_script_fails_without_a_hit(tmp_path: Path) -> None:
    code, _, err = await run_against("test-vllm-mlx-cache.sh", slow, tmp_path, cache_policy="off")
    assert code == 1
    assert "FAILED: the second answer is no hit" in err


async def test_the_tools_script_shows_the_calls(tmp_path: Path) -> None:
    code, out, err = await run_against("test-vllm-mlx-tools.sh", calls_the_tool, tmp_path)
    assert (code, err) == (0, "")
    assert out.count('"city": "Paris"') == 2
    assert "\u2713 Tool calling works in both APIs" in out


async def test_the_tools_script_fails_without_a_call(tmp_path: Path) -> None:
    code, _, err = await run_against("test-vllm-mlx-tools.sh", talks_instead, tmp_path)
    assert code == 1
    assert "FAILED: OpenAI API, tool_calls: the model made no usable call" in err


def run_alone(terminal: Terminal, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPTS / "test-vllm-mlx-tools.sh"],
        cwd=terminal.cwd,
        env=terminal.environment | {"VLLM_MLX_URL": f"{terminal.url}/v1"} | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def test_a_server_is_started_and_stopped_when_there_is_none(terminal: Terminal) -> None:
    """The scripted executor calls tools without arguments: the script must say that this is not what was asked for."""
    (terminal.home / ".venv-mlx" / "bin").mkdir(parents=True)
    program = terminal.home / ".venv-mlx" / "bin" / "anyclaude"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n')
    program.chmod(0o755)
    done = run_alone(terminal)
    assert f"No server at {terminal.url}: starting one" in done.stdout
    assert done.returncode == 1
    assert 'Expected a call of get_weather with the text "city"' in done.stderr
    assert terminal.health() is None


def test_a_server_on_another_machine_is_not_started(terminal: Terminal) -> None:
    done = run_alone(terminal, VLLM_MLX_URL=f"http://0.0.0.0:{terminal.port}/v1")
    assert done.returncode == 1
    assert "FAILED: no server at" in done.stderr
