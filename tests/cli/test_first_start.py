"""`anyclaude` without a configured model: choosing, fetching, trying and keeping one."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.cli.client import ServerClient
from service.cli.first_start import calls_tool
from service.config import parse_base_url
from service.config.edit import write_first_choice
from service.device.card import read_engines_device
from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from service.models.recommended import RECOMMENDED, present_refusal
from tests.cli.screen import on_screen
from tests.cli.terminal import Terminal
from tests.models.hub_server import NAME, serve_hub
from tests.serving import running, settings


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    terminal.install_claude()
    terminal.configure()
    terminal.environment |= {"HF_HOME": str(terminal.home / "hf"), "NO_PROXY": "127.0.0.1"}
    return terminal


def configured(user: Terminal) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(user.configuration.read_text())["backends"]["vllm-mlx"]
    return keys


@pytest.mark.parametrize("model", ["", "current-model"])
def test_without_a_terminal_one_line_says_what_to_do(user: Terminal, model: str) -> None:
    done = user.run("-p", "hello", VLLM_MLX_MODEL=model)
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith("Error: No model is configured. Run 'anyclaude' in a terminal to choose one")
    assert len(done.stderr.splitlines()) == 1
    assert not (user.folder / "claude.json").exists()


def test_a_model_is_fetched_tried_kept_and_used(user: Terminal, tiny_model: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    with serve_hub(files) as hub, on_screen(user, "-p", "hello", HF_ENDPOINT=hub.endpoint) as screen:
        screen.until("Which model?")
        assert "GB of memory; models can use" in screen.shown
        assert "to download; " in screen.shown
        screen.type(NAME)
        screen.until(f"Download {NAME}?")
        screen.type("y")
        screen.until(f"Fetching {NAME} from Hugging Face")
        screen.until("did not call a tool")  # its weights are random
        screen.until("Use it all the same?")
        screen.type("y")
        assert screen.end() == 0, screen.shown
    assert user.claude()["health"]["model"] == NAME
    assert configured(user) == {"port": user.port, "model": NAME, "maxConcurrency": "auto"}
    assert f"{user.configuration} now names it." in screen.shown
    assert user.health() is None


def test_a_model_that_is_there_is_offered_and_a_no_keeps_the_configuration(user: Terminal, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, user.home / ".lmstudio" / "models" / "org" / "tiny")
    with on_screen(user) as screen:
        screen.until("Which model?")
        assert "on this machine, from LM Studio" in screen.shown
        screen.type("1")
        screen.until("Use it all the same?")
        assert "Download" not in screen.shown
        screen.type("n")
        assert screen.end() == 1
    assert configured(user) == {"port": user.port}
    assert not (user.folder / "claude.json").exists()


def test_a_model_without_room_is_said_before_it_is_fetched(user: Terminal) -> None:
    largest = RECOMMENDED[-1].id
    with on_screen(user) as screen:
        screen.until("Which model?")
        screen.type(largest)
        screen.until(f"Download {largest}?")
        without_room = present_refusal(largest, read_engines_device()) is not None
        assert (f"Note: now this machine could not load {largest}: it needs 6" in screen.shown) == without_room
        screen.type("n")
        assert screen.end() == 1


def test_a_name_that_is_no_model_ends_with_the_nearest(user: Terminal) -> None:
    with on_screen(user) as screen:
        screen.until("Which model?")
        screen.type("qwen3:0.6b")
        assert screen.end() == 66
    assert "mlx-community/Qwen3-0.6B-4bit" in screen.shown


def test_the_model_is_written_beside_what_a_file_says(tmp_path: Path) -> None:
    file, link = tmp_path / "dotfiles.json", tmp_path / ".anyclauderc.json"
    link.symlink_to(file)
    write_first_choice(link, "org/one")
    assert json.loads(file.read_text()) == {"backends": {"vllm-mlx": {"model": "org/one", "maxConcurrency": "auto"}}}
    file.write_text('\ufeff{"debug": {"level": 1}, "backends": {"vllm-mlx": {"port": 9000, "maxConcurrency": 3}}}')
    write_first_choice(link, "org/two")
    keys = {"port": 9000, "maxConcurrency": 3, "model": "org/two"}
    assert json.loads(file.read_text()) == {"debug": {"level": 1}, "backends": {"vllm-mlx": keys}}
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("name", "arguments", "works"),
    [
        ("read_file", '{"path": "notes.txt"}', True),
        ("read_file", '{"path": "other.txt"}', False),
        ("read_file", "notes.txt", False),
        ("write_file", '{"path": "notes.txt"}', False),
        (None, "I would read notes.txt.", False),
    ],
)
async def test_a_tool_call_counts_if_it_is_the_right_one(
    tmp_path: Path, name: str | None, arguments: str, works: bool
) -> None:
    async def play(_: GenerationRequest) -> AsyncIterator[str | Event]:
        if name is None:
            yield arguments
        else:
            yield ToolCallStarted(0, "call_0", name)
            yield ToolCallDelta(0, arguments)

    chosen = settings(tmp_path)
    async with running(create_app(chosen, executor=ScriptedExecutor(play)), chosen) as url:
        client = ServerClient(parse_base_url(url), chosen.api_key)
        assert await asyncio.to_thread(calls_tool, client) is works
