"""`anyclaude run`: a chat with the scripted executor, which repeats the last user message."""

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal
from tests.patience import PATIENCE_SECONDS, until

README = Path(__file__).parents[2] / "README.md"


def test_a_prompt_is_answered_once(terminal: Terminal) -> None:
    done = terminal.run("run", "scripted-model", "Say", "this.")
    assert (done.returncode, done.stdout) == (0, "Say this.\n")
    assert terminal.health() is None


@pytest.mark.model
def test_the_readmes_question_to_the_demo_model_ends_well(terminal: Terminal, demo_model: Path) -> None:
    command = re.search(r"`anyclaude run demo '(.+?)'`", README.read_text())
    assert command is not None
    models = terminal.home / ".anyclaude" / "models"
    models.mkdir(parents=True)
    shutil.copytree(demo_model, models / demo_model.name)
    terminal.configure()
    done = terminal.run("run", "demo", command[1])
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n"), done.stderr


def test_a_prompt_on_the_standard_input_is_answered(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        done = subprocess.run(
            terminal.command("run"),
            cwd=terminal.cwd,
            env=terminal.environment,
            input="From a pipe.",
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "From a pipe.\n", "")
        assert terminal.health()["status"] == "healthy"


def test_a_conversation(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        screen = converse(
            terminal, ["hello there", "hello there", "/clear", "hello there", "/model", "/nonsense", "/bye"]
        )
    assert "Chat with scripted. /help lists the commands." in screen
    assert screen.count("hello there") == 6  # typed and answered, three times
    assert screen.count("[miss, ") == 2
    assert screen.count("[hit, ") == 1
    assert "/system TEXT" in screen


def test_the_first_error_is_the_servers_own(terminal: Terminal) -> None:
    done = terminal.run("run", "qwen3:0.6b", "hello", VLLM_MLX_MODEL="")
    terminal.configure(executor="mlx")
    done = terminal.run("run", "qwen3:0.6b", "hello")
    assert done.returncode == 66
    assert "mlx-community/Qwen3-0.6B-4bit" in done.stderr


def test_it_ends_with_the_input(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        assert "Chat with scripted" in converse(terminal, [])


@pytest.mark.parametrize("words", [["list"], ["pull", "x"], ["ls"], ["rm", "x"], ["chat"]])
def test_commands_of_other_tools_are_no_prompts(terminal: Terminal, words: list[str]) -> None:
    terminal.install_claude()
    done = terminal.run(*words)
    assert (done.returncode, "Did you mean 'anyclaude " in done.stderr) == (2, True)
    assert not (terminal.folder / "claude.json").exists()


def converse(terminal: Terminal, lines: list[str]) -> str:
    """What the screen shows when each line is typed at its prompt, and then Ctrl-D."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(terminal.cwd)
        os.execve(terminal.command()[0], terminal.command("run"), terminal.environment | {"TERM": "dumb"})  # noqa: S606
    screen, left = "", [*lines, "\x04"]
    with open(descriptor, "r+b", buffering=0) as keyboard:
        while chunk := _read(keyboard):
            screen += chunk
            if left and screen.count(">>> ") > len(lines) - len(left) + 1:
                line = left.pop(0)
                keyboard.write(line.encode() if line == "\x04" else f"{line}\n".encode())
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return screen


def _read(keyboard: object) -> str:
    try:
        return keyboard.read(4096).decode(errors="replace")  # type: ignore[attr-defined,no-any-return]
    except OSError:  # the terminal has closed
        return ""
