"""Real agents through `anyclaude NAME`, on a scripted model that calls two of their tools."""

import asyncio
import os
import re
import shlex
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from service.agents.table import AGENTS
from service.app import create_app
from service.executor.scripted import Script, ScriptedExecutor
from service.generation import GenerationRequest
from tests.agents.tasks import AIDER, CLOSING, FILE, OTHER_APIS, TASKS, WORD, Task, model_for, write_file
from tests.cli.terminal import Terminal
from tests.serving import running, settings

CACHE = Path(__file__).parents[1] / ".cache" / "agents"


@pytest.fixture
def user(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    bins = [str(folder) for folder in CACHE.glob("*/node_modules/.bin")]
    terminal.environment["PATH"] = os.pathsep.join([*bins, terminal.environment["PATH"]])
    del terminal.environment["PYTHONWARNINGS"]
    return terminal


@pytest.mark.parametrize(("name", "task"), TASKS.items(), ids=TASKS)
async def test_an_agent_uses_two_tools_and_then_hits_only(user: Terminal, name: str, task: Task) -> None:
    async with serving(user, name, model_for(task, user.cwd / FILE)) as executor:
        await assert_done_twice(user, executor, task, [*user.command(name), *task.arguments])


@pytest.mark.parametrize(("name", "task"), OTHER_APIS.items(), ids=OTHER_APIS)
async def test_the_printed_settings_serve_an_agents_other_api_too(user: Terminal, name: str, task: Task) -> None:
    async with serving(user, name, model_for(task, user.cwd / FILE)) as executor:
        script = (await asyncio.to_thread(user.run, "connect", name)).stdout.rstrip()
        for old, new in task.changes:
            old, new = old.replace("URL", user.url), new.replace("URL", user.url)
            assert old in script
            script = script.replace(old, new)
        await assert_done_twice(user, executor, task, ["sh", "-c", f"{script} {shlex.join(task.arguments)}"])


async def test_aider_writes_the_file_of_an_answer_and_then_hits_only(user: Terminal) -> None:
    (user.bin / "aider").symlink_to(CACHE / "aider" / "bin" / "aider")
    generated = []
    async with serving(user, "aider", write_file) as executor:
        for _ in range(2):
            done = await asyncio.to_thread(user.run, "aider", *AIDER)
            assert (done.returncode, (user.cwd / FILE).read_text()) == (0, f"{WORD}\n"), done.stdout + done.stderr
            (user.cwd / FILE).unlink()
            generated.append(len(executor.submitted))
    assert generated[0] == generated[1] > 0


@asynccontextmanager
async def serving(user: Terminal, name: str, script: Script) -> AsyncIterator[ScriptedExecutor]:
    """The executor gets the requests that are no hits."""
    if not (CACHE / name).exists():
        pytest.skip(f"{AGENTS[name].title} is not installed: run tests/agents/install.sh {name}")
    configured = settings(user.folder / "server")
    executor = ScriptedExecutor(script)
    async with running(create_app(configured, executor=executor), configured) as url:
        user.use_server(url)
        yield executor


async def assert_done_twice(user: Terminal, executor: ScriptedExecutor, task: Task, command: list[str]) -> None:
    saved = user.cwd / FILE
    runs: list[list[GenerationRequest]] = []
    for _ in range(2):
        executor.submitted.clear()
        done = await asyncio.to_thread(user.execute, command)
        assert (done.returncode, CLOSING in done.stdout) == (0, True), done.stdout + done.stderr
        assert saved.read_text() == f"{WORD}\n"
        saved.unlink()
        # A request for the session's title has no tools, and may come at any time.
        runs.append([request for request in executor.submitted if request.tools])
    first, again = runs
    assert len(first) >= 3
    if task.varies:
        assert first[0].tools == again[0].tools
        pairs = zip(first[0].messages, again[0].messages, strict=True)
        assert next(one.role for one, other in pairs if one != other) == task.varies
        assert all(continues(*pair) for run in (first, again) for pair in pairwise(run))
    else:
        missed, before = (Counter(map(without_wall_time, run)) for run in (again, first))
        assert missed <= before
        assert all("Wall time" in messages for messages in missed)


def without_wall_time(request: GenerationRequest) -> str:
    """Codex puts the seconds that a command took before its output. On a busy machine they differ from run to run."""
    return re.sub(r"(?<=Wall time: )[0-9.]+(?= seconds)", "", msgspec.json.encode(request.messages).decode())


def continues(earlier: GenerationRequest, later: GenerationRequest) -> bool:
    return earlier.tools == later.tools and earlier.messages == later.messages[: len(earlier.messages)]
