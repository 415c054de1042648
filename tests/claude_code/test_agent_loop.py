"""The whole loop of an agent: Claude Code asks, the model calls Bash and Read, Claude Code runs them and sends back
what they gave, the model ends. The model is real, if very small."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.claude_code.agent_conversation import CLOSING, PROOF, PROOF_FILE
from tests.claude_code.claude import SHORT_PROMPT, ClaudeCode
from tests.patience import PATIENCE_SECONDS
from tests.ports import free_port
from tests.server_process import ServerProcess, environment, serving

pytestmark = pytest.mark.model

LOOP = ("--tools", "Bash,Read", *SHORT_PROMPT, "--allowedTools", "Bash", "Read", "--max-turns", "4")


@pytest.fixture(scope="module")
def agent_server(
    claude_program: Path, agent_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("agent") / "server", str(agent_model)) as server:
        yield server


def test_two_tool_calls_are_run_and_the_last_result_ends_the_turn(
    agent_server: ServerProcess, claude: ClaudeCode
) -> None:
    outcome = claude.ask(agent_server.url, "Please prove that you can run a command.", *LOOP)
    requests = agent_server.new_requests(3)

    assert (claude.work / PROOF_FILE).read_text() == f"{PROOF}\n"
    assert (outcome.code, outcome.said["is_error"], outcome.said["num_turns"]) == (0, False, 3)
    assert outcome.text == CLOSING
    assert [(r["status"], r["cache"], r["finish_reason"]) for r in requests] == [
        (200, "miss", "tool_calls"),
        (200, "miss", "tool_calls"),
        (200, "miss", "stop"),
    ]


def test_the_same_loop_again_runs_the_command_again_and_the_model_not_at_all(
    agent_server: ServerProcess, claude: ClaudeCode
) -> None:
    first = claude.ask(agent_server.url, "Please do it twice.", *LOOP)
    (claude.work / PROOF_FILE).unlink()
    again = claude.ask(agent_server.url, "Please do it twice.", *LOOP)
    requests = agent_server.new_requests(6)

    assert (claude.work / PROOF_FILE).read_text() == f"{PROOF}\n"
    assert again.text == first.text == CLOSING
    assert [r["cache"] for r in requests] == ["miss"] * 3 + ["hit"] * 3


def test_one_command_starts_the_server_runs_the_loop_and_leaves_nothing_behind(
    claude: ClaudeCode, agent_model: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(claude.program)
    root = f"http://127.0.0.1:{free_port()}"
    mine = environment(claude.home)
    mine |= {"PATH": f"{programs}:{mine['PATH']}", "VLLM_MLX_URL": f"{root}/v1", "VLLM_MLX_MODEL": str(agent_model)}

    command = [sys.executable, "-m", "service.cli", "--mode=vllm-mlx", "-p", "Please write the proof.", *LOOP]
    outcome = claude.run(command, mine)

    assert (claude.work / PROOF_FILE).read_text() == f"{PROOF}\n"
    assert (outcome.code, outcome.text) == (0, CLOSING)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{root}/health", timeout=PATIENCE_SECONDS)
