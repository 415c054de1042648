"""`ps`, `stop` and `logs`: the servers that launchers start in the background."""

import json
import signal

import pytest

from tests.cli.terminal import Terminal
from tests.patience import PATIENCE_SECONDS, until


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    terminal.install_claude()
    return terminal


def left_over(user: Terminal) -> int:
    """The process id of a server whose launcher was killed."""
    with user.start(FAKE_WAITS="1") as launcher:
        user.claude()
        launcher.send_signal(signal.SIGKILL)
        launcher.wait(timeout=PATIENCE_SECONDS)
        user.let_go()
    return user.server_pid()


def test_nothing_runs(user: Terminal) -> None:
    assert user.run("ps").stdout.startswith("No server is running.")
    assert json.loads(user.run("ps", "--json").stdout) == []
    assert user.run("stop", "--all").stdout == "No background server runs.\n"
    stopped = user.run("stop")
    assert (stopped.returncode, f"No background server runs on port {user.port}" in stopped.stderr) == (1, True)
    assert user.run("logs").returncode == 1


def test_a_server_that_was_left_over_is_listed_and_stopped(user: Terminal) -> None:
    pid = left_over(user)
    expected = {"address": user.url, "pid": pid, "status": "healthy", "model": "scripted"}
    expected["models"] = {"scripted": True}
    assert json.loads(user.run("ps", "--json").stdout) == [expected]
    listed = user.run("ps").stdout.splitlines()
    assert listed[1].split() == [user.url, str(pid), "healthy", "scripted"]
    assert "Serving" in user.run("logs").stdout
    assert user.run("stop").stdout == f"Stopped the server on port {user.port}.\n"
    assert user.health() is None


def test_a_server_in_use_is_stopped_by_force_alone(user: Terminal) -> None:
    with user.start(FAKE_WAITS="1") as launcher:
        user.claude()
        refused = user.run("stop", str(user.port))
        assert (refused.returncode, "--force" in refused.stderr) == (1, True)
        assert user.health()["status"] == "healthy"
        assert user.run("stop", "--all", "--force").returncode == 0
        assert user.health() is None
        user.let_go()
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 0


def test_a_server_in_the_foreground_is_listed_without_a_process(user: Terminal) -> None:
    with user.start("serve"):
        until(user.health, "the server")
        listed = json.loads(user.run("ps", "--json").stdout)
        assert [row["pid"] for row in listed] == [None]
        assert user.run("stop").returncode == 1
        assert user.health()["status"] == "healthy"


def test_the_log_is_followed(user: Terminal) -> None:
    log = user.home / ".anyclaude" / "logs" / f"server-{user.port}.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    with user.start("logs", "--follow", "--lines", "1") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "two\n"
        with log.open("a") as file:
            file.write("three\n")
        assert following.stdout.readline() == "three\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=PATIENCE_SECONDS) == 130
