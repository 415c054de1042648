import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claude_code.agent_model import CACHE, ensure_agent_model
from tests.claude_code.claude import ClaudeCode
from tests.server_process import ServerProcess, serving

PINNED = ("claude-code-*/node_modules/@anthropic-ai/claude-code-*/claude", "tests/claude_code/install.sh")
NEWEST = ("agents/claude/node_modules/@anthropic-ai/claude-code-*/claude", "tests/agents/install.sh claude")


def installed(program: tuple[str, str]) -> Path:
    pattern, installer = program
    path = next(CACHE.glob(pattern), None)
    missing = f"Claude Code is not installed: run {installer}"
    if path is None and os.environ.get("CI"):
        pytest.fail(missing)
    if path is None:
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def claude_program() -> Path:
    return installed(PINNED)


@pytest.fixture
def claude(claude_program: Path, tmp_path: Path) -> ClaudeCode:
    return ClaudeCode(claude_program, tmp_path)


@pytest.fixture
def newest(tmp_path: Path) -> ClaudeCode:
    """The newest release, which the agents' tests install."""
    return ClaudeCode(installed(NEWEST), tmp_path)


@pytest.fixture(scope="module")
def demo_server(
    claude_program: Path, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("demo") / "server", str(demo_model)) as server:
        yield server


@pytest.fixture(scope="session")
def agent_model() -> Path:
    return ensure_agent_model(CACHE)
