"""The working folder's `.anyclauderc.json` from the user's side: the question, the command, what is shown."""

import json
import os
import pty
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.patience import PATIENCE_SECONDS, until


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    """Works in a cloned repository whose file wants to be reached under another name."""
    repository(terminal, allowedHosts=["box.local"], maxQueue=7)
    return terminal


def repository(terminal: Terminal, **keys: Any) -> None:
    (terminal.cwd / ".anyclauderc.json").write_text(json.dumps({"backends": {"vllm-mlx": keys}}))


def in_force(terminal: Terminal) -> Any:
    return json.loads(terminal.run("config", "--json").stdout)["backends.vllm-mlx.allowedHosts"]


def in_a_terminal(user: Terminal, *arguments: str, answers: dict[str, str]) -> tuple[int, str]:
    """The exit code and the screen of a command whose questions are answered."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(user.cwd)
        os.execve(user.command()[0], user.command(*arguments), user.environment)  # noqa: S606
    screen = ""
    with open(descriptor, "r+b", buffering=0) as terminal:
        while chunk := _read(terminal.read):
            screen += chunk
            for question, answer in list(answers.items()):
                if question in screen:
                    terminal.write(f"{answers.pop(question)}\n".encode() if answer else b"\n")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), screen.replace("\r", "")


def _read(read: Callable[[int], bytes]) -> str:
    try:
        return read(4096).decode(errors="replace")
    except OSError:  # the terminal has closed
        return ""


def test_without_a_terminal_one_line_names_what_is_left_out(user: Terminal) -> None:
    with user.start("serve") as server:
        until(user.health, "the server")
        server.terminate()
        _, err = server.communicate(timeout=PATIENCE_SECONDS)
    notes = [line for line in err.splitlines() if "approved" in line]
    assert notes == [
        f"Note: {user.cwd}/.anyclauderc.json is not approved, so these values of it are left out: allowedHosts. "
        "Run 'anyclaude trust' there to approve the file."
    ]


def test_config_and_doctor_show_what_is_not_approved(user: Terminal) -> None:
    file = user.cwd / ".anyclauderc.json"
    assert in_force(user) == {
        "value": [],
        "from": "default",
        "notApproved": ["box.local"],
        "notApprovedFrom": str(file),
    }
    shown = user.run("config").stdout
    assert f"{file} is not approved, so these values of it are left out: allowedHosts." in shown
    assert 'backends.vllm-mlx.allowedHosts: ["box.local"], instead of []' in shown
    assert "maxQueue" in shown
    checks = {check["name"]: check for check in json.loads(user.run("doctor", "--json").stdout)}
    assert checks["Configuration"]["status"] == "warning"
    assert "left out: allowedHosts" in checks["Configuration"]["found"]


def test_trust_approves_and_revokes(user: Terminal) -> None:
    approved = user.run("trust")
    assert (approved.returncode, 'allowedHosts: ["box.local"], instead of []' in approved.stdout) == (0, True)
    assert in_force(user)["value"] == ["box.local"]
    assert "needs no approval" in user.run("trust").stdout
    assert (user.home / ".anyclaude" / "approved.json").stat().st_mode & 0o777 == 0o600
    assert user.run("trust", "--revoke").stdout.endswith(".anyclauderc.json is no longer approved.\n")
    assert in_force(user)["value"] == []
    assert user.run("trust", "--revoke").stdout.endswith(".anyclauderc.json was not approved.\n")


def test_trust_approves_models_with_their_aliases(user: Terminal) -> None:
    repository(user, models={"big": {"model": "org/big"}}, aliases={"claude-*": "big"})
    assert "left out: models, aliases." in user.run("config").stdout
    approved = user.run("trust")
    assert (approved.returncode, approved.stderr) == (0, "")
    assert 'aliases: {"claude-*": "big"}, instead of {}' in approved.stdout
    values = json.loads(user.run("config", "--json").stdout)
    assert values["backends.vllm-mlx.aliases"]["value"] == {"claude-*": "big"}
    assert list(values["backends.vllm-mlx.models"]["value"]) == ["big"]


def test_trust_without_a_file(terminal: Terminal) -> None:
    done = terminal.run("trust")
    assert (done.returncode, done.stderr) == (1, f"Error: There is no {terminal.cwd}/.anyclauderc.json.\n")


@pytest.mark.parametrize("command", ["config", "trust", "doctor", "serve", "stats"])
def test_a_working_folder_that_was_removed_is_named(terminal: Terminal, command: str) -> None:
    done = terminal.execute(
        ["/bin/sh", "-c", 'rmdir "$PWD" && exec "$0" -P -m service.cli "$1"', sys.executable, command]
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        ["Error: The working folder cannot be used: No such file or directory. Change to another folder first."],
    )


UNUSABLE = {
    "too long": "./" + "n" * 300,
    "too deep": "./" + "n/" * 2500,
    "a long name on the hub": "loops/" + "n" * 300,
    "an unknown user": "~nosuchuser/model",
    "a loop of links": "./loop/model",
}


@pytest.mark.parametrize("model", UNUSABLE.values(), ids=UNUSABLE)
def test_a_path_that_cannot_be_is_no_defect(terminal: Terminal, model: str) -> None:
    """The working folder's file needs no approval for most of them."""
    (terminal.cwd / "loop").symlink_to("loop")
    (terminal.cwd / "loops").mkdir()
    repository(terminal, model=model, draftModel=model, executor="mlx")
    for command in (["config"], ["models", "list"], ["doctor"], ["trust"], ["doctor"], ["serve"]):
        done = terminal.run(*command, HF_HUB_OFFLINE="1")
        assert "Traceback" not in done.stderr, (command, done.stderr)
    assert done.returncode == 66


@pytest.mark.parametrize(("answer", "value"), [("y", ["box.local"]), ("n", []), ("", [])])
def test_in_a_terminal_the_user_is_asked(user: Terminal, answer: str, value: list[str]) -> None:
    code, screen = in_a_terminal(user, "stats", answers={"Approve this file?": answer})
    assert code == 69  # no server runs
    assert 'backends.vllm-mlx.allowedHosts: ["box.local"], instead of []' in screen
    assert in_force(user)["value"] == value


def test_characters_of_the_file_cannot_hide_anything_on_the_screen(user: Terminal) -> None:
    repository(user, allowedHosts=["\u001b[2Jnothing to see", "\u202egpj.exe"])
    _, screen = in_a_terminal(user, "stats", answers={"Approve this file?": "n"})
    assert "\u001b[2J" not in screen
    assert "\\u202egpj.exe" in screen


def test_the_users_key_does_not_leave_with_a_repositorys_url(user: Terminal) -> None:
    """What Claude Code gets, too."""
    user.install_claude()
    user.configure(executor="scripted", apiKey="the user's own key")
    repository(user, baseUrl="http://192.0.2.1:1/v1")
    assert user.run("-p", "hello").returncode == 0
    assert user.claude()["environment"]["ANTHROPIC_BASE_URL"] == user.url


def test_the_quick_starts_file_works_as_it_stands(terminal: Terminal) -> None:
    terminal.install_claude()
    (terminal.home / ".anyclauderc.json").unlink()
    keys = {"enabled": True, "baseUrl": f"http://localhost:{terminal.port}/v1", "apiKey": "vllm-mlx"}
    document = {"backend": "vllm-mlx", "debug": {"level": 1}, "backends": {"vllm-mlx": keys}}
    document["backends"]["vllm-mlx"] |= {"executor": "scripted", "model": str(terminal.folder)}  # type: ignore[index]
    (terminal.cwd / ".anyclauderc.json").write_text(json.dumps(document))
    done = terminal.run("-p", "hello")
    assert (done.returncode, "approve" in done.stderr) == (0, False), done.stderr
    assert terminal.claude()["health"]["status"] == "healthy"
