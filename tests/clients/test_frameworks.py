"""Python frameworks and Node packages with their default classes, and LiteLLM's proxy in front of the server, on a
scripted model that calls both of their tools."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.patience import PATIENCE_SECONDS, until
from tests.ports import free_port
from tests.serving import client_of, running, settings

FRAMEWORKS, NODE_PROGRAMS = (Path(__file__).parent / name for name in ("frameworks", "node"))
PYTHON, NODE, LITELLM_PROXY = (
    Path(__file__).parents[1] / ".cache" / name for name in ("frameworks", "node", "litellm_proxy")
)
PROXY_KEY = f"sk-{'0123456789abcdef' * 3}"


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
    await assert_asked_twice(tmp_path, node_command(tmp_path, name))


class LiteLLMProxy:
    """LiteLLM's proxy at `url`. It has two models, by-openai and by-anthropic, which are ours through either API."""

    def __init__(self) -> None:
        self.port, self.server_port = free_port(), free_port()
        self.url, self.server_url = (f"http://127.0.0.1:{port}" for port in (self.port, self.server_port))

    def configuration(self) -> str:
        apis = {"openai": f"{self.server_url}/v1", "anthropic": self.server_url}
        models = [
            {
                "model_name": f"by-{api}",
                "litellm_params": {"model": f"{api}/default", "api_base": url, "api_key": "any"},
            }
            for api, url in apis.items()
        ]
        return json.dumps({"model_list": models})

    def is_alive(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/liveliness", trust_env=False).is_success
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def litellm_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLMProxy]:
    if not (LITELLM_PROXY / "installed").exists():
        pytest.skip("LiteLLM's proxy is not installed: run tests/clients/frameworks/install.sh")
    proxy, folder = LiteLLMProxy(), tmp_path_factory.mktemp("litellm_proxy")
    configuration, log = folder / "config.yaml", folder / "log"
    configuration.write_text(proxy.configuration())
    command = [LITELLM_PROXY / "bin" / "litellm", "--config", configuration, "--port", str(proxy.port)]
    variables = {
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": PROXY_KEY,
        "LITELLM_TELEMETRY": "False",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"], cwd=folder, env=os.environ | variables, stdout=output, stderr=output
        )
    try:
        until(lambda: proxy.is_alive() or process.poll() is not None, "LiteLLM's proxy")
        assert process.poll() is None, log.read_text()
        yield proxy
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize("client", ["ai_sdk_anthropic", "ai_sdk_openai", "openai"])
async def test_a_client_of_litellms_proxy_uses_both_tools_and_then_hits_only(
    tmp_path: Path, litellm_proxy: LiteLLMProxy, client: str, api: str
) -> None:
    variables = {
        "OPENAI_BASE_URL": f"{litellm_proxy.url}/v1",
        "OPENAI_API_KEY": PROXY_KEY,
        "ANTHROPIC_BASE_URL": f"{litellm_proxy.url}/v1",
        "ANTHROPIC_API_KEY": PROXY_KEY,
        "MODEL": f"by-{api}",
    }
    command = node_command(tmp_path, client)
    await assert_asked_twice(tmp_path, command, port=litellm_proxy.server_port, **variables)


def node_command(folder: Path, name: str) -> list[str]:
    if not NODE.exists():
        pytest.skip("The Node packages are not installed: run tests/clients/node/install.sh")
    # Node looks for packages beside the program.
    programs = shutil.copytree(NODE_PROGRAMS, folder / "programs")
    (programs / "node_modules").symlink_to(NODE / "node_modules")
    return ["node", str(programs / f"with_{name}.mjs")]


async def assert_asked_twice(folder: Path, command: list[str], *, port: int = 0, **variables: str) -> None:
    configured = settings(folder / "home", port=port)
    app = create_app(configured, executor=ScriptedExecutor(save_and_count))
    async with running(app, configured) as url, client_of(url) as client:
        direct = {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "any",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        assert await asyncio.to_thread(_run, command, folder, direct | variables) == ["It has 5 letters."] * 2
        cache = (await client.get("/health")).json()["cache"]
    assert (folder / "saved").read_text() == "mango"
    assert (cache["misses"], cache["hits"]) == (3, 3)


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> list[str]:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
