"""The newest Claude Code in a terminal, started by `anyclaude`, on a scripted model that calls what it is told to."""

import asyncio
import json
import logging
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.app import create_app
from service.events import Event, ToolCallDelta, ToolCallStarted
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.executor.scripted import PROFILE, ScriptedExecutor
from service.generation import GenerationRequest
from service.profile import ModelProfile
from service.settings import Settings
from tests.claude_code.claude import ClaudeCode
from tests.cli.screen import Screen, on_screen
from tests.cli.terminal import Terminal
from tests.no_home import NO_HOME
from tests.serving import running, settings

DOT = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
CALLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "WEIGH": [
        ("ToolSearch", {"query": "select:mcp__fruit__weigh", "max_results": 1}),
        ("mcp__fruit__weigh", {"fruit": "mango"}),
    ],
    "LOOK": [("Read", {"file_path": "dot.png"})],
    "FIND": [("ToolSearch", {"query": "select:WebSearch", "max_results": 1}), ("WebSearch", {"query": "mangos"})],
    "CLOSE": [],
}
CONTEXT_TOKENS = 32_768
MOST_NEW_TOKENS = 600
"""A turn adds a call and its result, and tool search the description of a tool."""
TOOLS = ("--allowedTools", "mcp__fruit__weigh", "ToolSearch", "Read", "WebSearch")


async def obey(request: GenerationRequest) -> AsyncIterator[str | Event]:
    """Makes the calls of the word in `CALLS` that the user said last. Any other message is answered like a request for
    a summary."""
    last = last_said(request)
    said = request.messages[last].content
    word = next((word for word in CALLS if said.endswith(word)), None)
    results = sum(message.role == "tool" for message in request.messages[last:])
    if word is None:
        yield "<summary>A fruit was weighed.</summary>"
    elif results < len(CALLS[word]):
        name, arguments = CALLS[word][results]
        yield ToolCallStarted(0, f"{word}{results}", name)
        yield ToolCallDelta(0, msgspec.json.encode(arguments).decode())
    else:
        yield f"{word}:DONE"


def last_said(request: GenerationRequest) -> int:
    return max(i for i, message in enumerate(request.messages) if message.role == "user")


@pytest.fixture
def user(newest: ClaudeCode, tmp_path: Path) -> Terminal:
    (tmp_path / "terminal").mkdir()
    user = Terminal(tmp_path / "terminal")
    user.environment["PATH"] = f"{newest.program.parent}:{user.environment['PATH']}"
    del user.environment["PYTHONWARNINGS"]
    project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(user.cwd): project}}
    (user.home / ".claude.json").write_text(json.dumps(known))
    return user


@pytest.fixture
async def executor(user: Terminal, tmp_path: Path) -> AsyncIterator[ScriptedExecutor]:
    """The model of the server that `user` has."""
    executor, configured = ScriptedExecutor(obey), settings(tmp_path / "server")
    async with running(create_app(configured, executor=executor), configured) as url:
        user.use_server(url)
        yield executor


def say(screen: Screen, word: str, shown: str) -> None:
    """Claude Code takes text and Enter in one piece for a paste."""
    screen.write(word)
    screen.until(word)
    screen.write("\r")
    screen.until(shown)


def talk(user: Terminal) -> None:
    (user.cwd / "dot.png").write_bytes(DOT)
    fruit = {"command": sys.executable, "args": [str(Path(__file__).with_name("fruit_server.py"))]}
    servers = json.dumps({"mcpServers": {"fruit": fruit}})
    with on_screen(user, "--mcp-config", servers, *TOOLS) as screen:
        screen.until("for shortcuts")
        for word in ("WEIGH", "LOOK", "FIND"):
            say(screen, word, f"{word}:DONE")
        say(screen, "/compact", "Compacted")
        say(screen, "CLOSE", "CLOSE:DONE")
        say(screen, "/exit", "")
        assert screen.end() == 0


async def tokens_read(model: Path, requests: list[GenerationRequest]) -> list[int]:
    """The tokens of each request that the model's prefix cache does not have when it reads them in their order."""
    profile = ModelProfile(id="agent", fingerprint="agent", context_length=CONTEXT_TOKENS)
    executor = MlxExecutor(model, profile, Settings(home=NO_HOME, prefix_disk_bytes=0))
    await executor.start()
    try:
        usages = []
        for request in requests:
            answer = await executor.submit(msgspec.structs.replace(request, max_tokens=1))
            usages.append((await collect(answer.events())).usage)
    finally:
        await executor.aclose()
    return [usage.prompt_tokens - usage.cached_tokens for usage in usages]


@pytest.mark.model
async def test_a_session_in_a_terminal(
    user: Terminal, executor: ScriptedExecutor, agent_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tool of an MCP server that tool search loads, an image, a search of the web that is off, and a compaction."""
    caplog.set_level(logging.INFO, logger="anyclaude.request")
    await asyncio.to_thread(talk, user)

    assert {record.status for record in caplog.records if hasattr(record, "status")} == {200}
    requests = [request for request in executor.submitted if request.tools]
    results = {message.content for request in requests for message in request.messages if message.role == "tool"}
    assert "mango: 300 g" in results
    assert any("this model reads text only" in result for result in results)
    said = [request.messages[last_said(request)].content for request in requests]
    compaction = next(i for i, text in enumerate(said) if not text.endswith(tuple(CALLS)))
    assert compaction == 8  # three words with one call or two each
    whole, *turns = await tokens_read(agent_model, requests[:compaction])
    assert whole > 40 * MOST_NEW_TOKENS
    assert max(turns) < MOST_NEW_TOKENS
    assert len(requests[-1].messages) < len(requests[-2].messages)


async def test_a_session_with_blocks_of_anthropics_servers_is_resumed(
    user: Terminal, executor: ScriptedExecutor
) -> None:
    first = await asyncio.to_thread(user.run, "-p", "CLOSE", "--output-format", "json")
    name = json.loads(first.stdout)["session_id"]
    (transcript,) = (user.home / ".claude" / "projects").glob(f"*/{name}.jsonl")
    transcript.write_text("".join(map(with_foreign_blocks, transcript.read_text().splitlines(keepends=True))))

    resumed = await asyncio.to_thread(user.run, "-p", "CLOSE", "--resume", name)
    assert resumed.stdout.strip() == "CLOSE:DONE"
    assert "plum.example" in executor.submitted[-1].messages[-2].content


async def call_it_fruit(request: GenerationRequest) -> AsyncIterator[str | Event]:
    yield '{"name": "ripe-fruit"}'


def rename(user: Terminal) -> None:
    with on_screen(user) as screen:
        screen.until("for shortcuts")
        say(screen, "CLOSE", "CLOSE:DONE")
        say(screen, "/rename", "ripe-fruit")
        say(screen, "/exit", "")
        assert screen.end() == 0


async def test_the_small_model_finds_a_name_for_the_session(user: Terminal, tmp_path: Path) -> None:
    big = ScriptedExecutor(obey)
    small = ScriptedExecutor(call_it_fruit, profile=msgspec.structs.replace(PROFILE, id="small"))
    configured = settings(tmp_path / "server", aliases={"*haiku*": "small", "*": PROFILE.id})
    async with running(create_app(configured, executor=big, others={"small": small}), configured) as url:
        user.use_server(url)
        await asyncio.to_thread(rename, user)

    assert [bool(request.tools) for request in big.submitted] == [True]
    (naming,) = [request for request in small.submitted if "CLOSE:DONE" in request.messages[-1].content]
    assert not naming.tools


def with_foreign_blocks(line: str) -> str:
    entry = json.loads(line)
    if entry.get("type") != "assistant":
        return line
    found = {"type": "web_search_result", "url": "https://plum.example/", "title": "Plums", "encrypted_content": "x"}
    entry["message"]["content"][:0] = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "plums"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
    ]
    return f"{json.dumps(entry)}\n"
