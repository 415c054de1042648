"""Python frameworks and Node packages with their default classes, on a scripted model that calls both of their
tools."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.serving import PATIENCE_SECONDS, running, settings

FRAMEWORKS, NODE_PROGRAMS = (Path(__file__).parent / name for name in ("frameworks", "node"))
PYTHON, NODE = (Path(__file__).parents[1] / ".cache" / name for name in ("frameworks", "node"))


async def save_and_count(request: GenerationRequest) -> AsyncIterator[str | Event]:
    results = [message.content for message in request.messages if message.role == "tool"]
    match len(results):
        case 0:
            yield ToolCallStarted(0, "first", "save")
            yield ToolCallDelta(0, '{"text":"mango"}')
        case 1:
            yield ToolCallStarted(0, "second", "count")
            yield ToolCallDelta(0, "{}")
        case _:
            yield f"It has {results[-1]}."


@pytest.mark.parametrize("name", ["langchain", "litellm", "openai_agents", "pydantic_ai"])
async def test_a_framework_uses_both_tools_and_then_hits_only(tmp_path: Path, name: str) -> None:
    if not (PYTHON / "installed").exists():
        pytest.skip("The frameworks are not installed: run tests/clients/frameworks/install.sh")
    program = FRAMEWORKS / f"with_{name}.py"
    await assert_asked_twice(tmp_path, [str(PYTHON / "bin" / "python"), str(program)])


@pytest.mark.parametrize("name", ["ai_sdk_anthropic", "ai_sdk_openai", "anthropic", "openai"])
async def test_a_node_package_uses_both_tools_and_then_hits_only(tmp_path: Path, name: str) -> None:
    if not NODE.exists():
        pytest.skip("The Node packages are not installed: run tests/clients/node/install.sh")
    # Node looks for packages beside the program.
    programs = shutil.copytree(NODE_PROGRAMS, tmp_path / "programs")
    (programs / "node_modules").symlink_to(NODE / "node_modules")
    await assert_asked_twice(tmp_path, ["node", str(programs / f"with_{name}.mjs")])


async def assert_asked_twice(folder: Path, command: list[str]) -> None:
    configured = settings(folder / "home")
    app = create_app(configured, executor=ScriptedExecutor(save_and_count))
    async with running(app, configured) as url, httpx.AsyncClient(base_url=url) as client:
        assert await _run(command, url, folder) == ["It has 5 letters."] * 2
        cache = (await client.get("/health")).json()["cache"]
    assert (folder / "saved").read_text() == "mango"
    assert (cache["misses"], cache["hits"]) == (3, 3)


async def _run(command: list[str], url: str, folder: Path) -> list[str]:
    environment = os.environ | {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "any",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 0, errors.decode()
    return out.decode().splitlines()
