"""The newest Claude Code with its whole default prompt, started by `anyclaude`, on the agent model."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.claude_code.agent_conversation import CLOSING, PROOF, PROOF_FILE
from tests.claude_code.claude import ClaudeCode, Outcome
from tests.server_process import ServerProcess, environment, serving

pytestmark = pytest.mark.model

TOOLS = ("--allowedTools", "Bash", "Read")
MOST_NEW_TOKENS = 100
"""A turn adds a call and its result, or a user's message with Claude Code's reminders."""


def ask(claude: ClaudeCode, server: ServerProcess, prompt: str, *arguments: str) -> Outcome:
    mine = environment(claude.home)
    mine |= {"PATH": f"{claude.program.parent}:{mine['PATH']}", "VLLM_MLX_URL": f"{server.url}/v1"}
    command = [sys.executable, "-m", "service.cli", "--mode=vllm-mlx", "-p", prompt, *TOOLS, *arguments]
    return claude.run(command, mine)


def assert_done(claude: ClaudeCode, outcome: Outcome) -> None:
    """Both tools ran: Bash wrote the file, and only a result of Read leads to the closing words."""
    assert (outcome.code, outcome.said["num_turns"], outcome.text) == (0, 3, CLOSING)
    proof = claude.work / PROOF_FILE
    assert proof.read_text() == f"{PROOF}\n"
    proof.unlink()


def read_tokens(request: dict[str, Any]) -> int:
    return int(request["prompt_tokens"] - request["cached_tokens"])


def test_the_whole_default_prompt_is_read_once(newest: ClaudeCode, agent_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with serving(folder, str(agent_model)) as server:
        assert_done(newest, ask(newest, server, "Please prove that you can run a command."))
        turns = server.new_requests(3)
        assert turns[0]["prompt_tokens"] > 12_000
        assert_done(newest, ask(newest, server, "Please prove that you can run a command."))
        again = server.new_requests(3)
    with serving(folder, str(agent_model)) as server:
        assert_done(newest, ask(newest, server, "Once more, please.", "--continue"))
        continued = server.new_requests(3)
    assert [request["cache"] for request in (*turns, *again, *continued)] == ["miss"] * 3 + ["hit"] * 3 + ["miss"] * 3
    assert all(read_tokens(request) < MOST_NEW_TOKENS for request in (*turns[1:], *continued))
    assert all(later["prompt_tokens"] > earlier["prompt_tokens"] for earlier, later in pairwise((*turns, *continued)))
