"""Real agents through `anyclaude NAME`, on the scripted executor: it repeats the user's words, so an agent that shows
them has sent a request and read its answer."""

import os
from pathlib import Path

import httpx
import pytest

from service.agents.table import AGENTS
from tests.cli.terminal import Terminal, until

CACHE = Path(__file__).parents[1] / ".cache" / "agents"
WORDS = "Say mango and nothing else"
ONE_ANSWER: dict[str, list[str]] = {
    "claude": ["-p", WORDS],
    "cline": [WORDS],
    "cn": ["-p", WORDS],
    "codex": ["exec", "--skip-git-repo-check", WORDS],
    "copilot": ["-p", WORDS, "--allow-all-tools"],
    "opencode": ["run", WORDS],
    "pi": ["-p", WORDS],
    "qwen": ["-p", WORDS],
}
# Copilot's prompt holds the time in milliseconds and the name of a random folder.
NEVER_THE_SAME = {"copilot"}


@pytest.fixture
def user(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    bins = [str(folder) for folder in CACHE.glob("*/node_modules/.bin")]
    terminal.environment["PATH"] = os.pathsep.join([*bins, terminal.environment["PATH"]])
    del terminal.environment["PYTHONWARNINGS"]
    terminal.patience_seconds = 180.0
    return terminal


def misses(user: Terminal) -> int:
    return int(httpx.get(f"{user.url}/health", trust_env=False).json()["cache"]["misses"])


@pytest.mark.parametrize("name", sorted(ONE_ANSWER))
def test_an_agent_answers_and_repeats_itself_from_the_cache(user: Terminal, name: str) -> None:
    if not (CACHE / name).exists():
        pytest.skip(f"{AGENTS[name].title} is not installed: run tests/agents/install.sh {name}")
    with user.start("serve"):
        until(user.health, "the server")
        first = user.run(name, *ONE_ANSWER[name])
        assert (first.returncode, "mango" in first.stdout) == (0, True), first.stdout + first.stderr
        before = misses(user)
        assert before > 0
        again = user.run(name, *ONE_ANSWER[name])
        assert (again.returncode, "mango" in again.stdout) == (0, True), again.stdout + again.stderr
        assert (misses(user) == before) is (name not in NEVER_THE_SAME)
