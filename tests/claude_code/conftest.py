import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claude_code.agent_model import CACHE, ensure_agent_model
from tests.claude_code.claude import ClaudeCode
from tests.server_process import ServerProcess, serving

PROGRAMS = "claude-code-*/node_modules/@anthropic-ai/claude-code-*/claude"
NEWEST_PROGRAMS = "agents/claude/node_modules/@anthropic-ai/claude-code-*/claude"
MISSING = "Claude Code is not installed: run tests/claude_code/install.sh"


@pytest.fixture(scope="session")
def claude_program() -> Path:
    program = next(CACHE.glob(PROGRAMS), None)
    if program is None and os.environ.get("CI"):
        pytest.fail(MISSING)
    if program is None:
        pytest.skip(MISSING)
    return program


@pytest.fixture
def claude(claude_program: Path, tmp_path: Path) -> ClaudeCode:
    return ClaudeCode(claude_program, tmp_path)


@pytest.fixture
def newest(tmp_path: Path) -> ClaudeCode:
    """The newest release that the agents' tests install."""
    program = next(CACHE.glob(NEWEST_PROGRAMS), None)
    if program is None:
        pytest.skip("Claude Code is not installed: run tests/agents/install.sh claude")
    return ClaudeCode(program, tmp_path)


@pytest.fixture(scope="module")
def demo_server(
    claude_program: Path, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("demo") / "server", str(demo_model)) as server:
        yield server


@pytest.fixture(scope="session")
def agent_model() -> Path:
    return ensure_agent_model(CACHE)
