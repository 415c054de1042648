"""Python frameworks with their default classes, on a scripted model that calls both of their tools."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.serving import PATIENCE_SECONDS, running, settings

FRAMEWORKS = Path(__file__).parent / "frameworks"
INSTALLED = Path(__file__).parents[1] / ".cache" / "frameworks"


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
    if not (INSTALLED / "installed").exists():
        pytest.skip("The frameworks are not installed: run tests/clients/frameworks/install.sh")
    configured = settings(tmp_path / "home")
    app = create_app(configured, executor=ScriptedExecutor(save_and_count))
    async with running(app, configured) as url, httpx.AsyncClient(base_url=url) as client:
        assert await _run(name, url, tmp_path) == ["It has 5 letters."] * 2
        cache = (await client.get("/health")).json()["cache"]
    assert (tmp_path / "saved").read_text() == "mango"
    assert (cache["misses"], cache["hits"]) == (3, 3)


async def _run(name: str, url: str, folder: Path) -> list[str]:
    environment = os.environ | {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "any",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    process = await asyncio.create_subprocess_exec(
        INSTALLED / "bin" / "python",
        FRAMEWORKS / f"with_{name}.py",
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 0, errors.decode()
    return out.decode().splitlines()
