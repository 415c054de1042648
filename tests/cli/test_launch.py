"""The launcher with a real server in a real process. Claude Code itself is a small script that says how it was
started."""

import http.server
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from service.agents.claude_code import MODEL_VARIABLES
from tests.cli.terminal import Terminal
from tests.patience import PATIENCE_SECONDS, until


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    terminal.install_claude()
    return terminal


def gone(terminal: Terminal) -> bool:
    return terminal.health() is None


def test_claude_code_runs_on_a_server_that_is_started_and_stopped(user: Terminal) -> None:
    done = user.run("--mode=vllm-mlx", "-p", "stats", "--", "-x", FAKE_EXIT="7")
    report = user.claude()
    assert done.returncode == 7
    assert done.stdout == ""
    assert report["arguments"] == ["--permission-mode", "default", "-p", "stats", "--", "-x"]
    assert report["health"]["status"] == "healthy"
    assert gone(user)
    log = user.home / ".anyclaude" / "logs" / f"server-{user.port}.log"
    assert str(log) in done.stderr
    assert "Serving" in log.read_text()
    assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_the_environment_of_claude_code(user: Terminal) -> None:
    user.run(
        ANTHROPIC_API_KEY="the user's own",
        CLAUDE_CODE_USE_BEDROCK="1",
        CLAUDE_CODE_OAUTH_TOKEN="the user's own",
        KEPT="yes",
        NO_PROXY="example.org",
    )
    environment = user.claude()["environment"]
    assert environment["ANTHROPIC_BASE_URL"] == user.url
    assert environment["ANTHROPIC_AUTH_TOKEN"] == "vllm-mlx"
    assert {environment[name] for name in MODEL_VARIABLES} == {"scripted"}
    assert environment["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"
    assert environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
    assert environment["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "200000"
    assert environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "25000"
    assert environment["API_TIMEOUT_MS"] == "4200000"
    assert (
        environment["CLAUDE_STREAM_IDLE_TIMEOUT_MS"] == environment["CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS"] == "1800000"
    )
    assert environment["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1"
    assert environment["KEPT"] == "yes"
    assert "the user's own" not in environment.values()
    assert "CLAUDE_CODE_USE_BEDROCK" not in environment


@pytest.mark.model
def test_claude_codes_models_follow_the_aliases(user: Terminal, tiny_model: Path) -> None:
    of_model = {"model": str(tiny_model)}
    models = {"middle": of_model, "big": of_model, "small": {**of_model, "contextLength": 500}}
    user.configure(models=models, aliases={"*haiku*": "small", "*opus*": "big", "*": "middle"})
    user.run()
    report = user.claude()
    names = ("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL")
    assert [report["environment"][name] for name in names] == ["big", "small", "middle"]
    assert [model["name"] for model in report["health"]["models"] if model["model_loaded"]] == ["middle"]


def test_a_pipe_gets_whole_lines(user: Terminal) -> None:
    done = user.run("-p", "hello", COLUMNS="20")
    assert done.returncode == 0
    assert re.search(rf"^Starting the server; its log is {user.home}\S+\.log$", done.stderr, re.MULTILINE)


def test_a_server_that_runs_is_used_and_left_running(user: Terminal) -> None:
    with user.start("serve"):
        until(user.health, "the server")
        done = user.run("-p", "hello")
        assert (done.returncode, done.stderr) == (0, "")
        assert user.claude()["health"]["status"] == "healthy"
        assert user.health()["status"] == "healthy"


def test_another_model_than_the_configured_one_is_said(user: Terminal) -> None:
    with user.start("serve"):
        until(user.health, "the server")
        done = user.run(VLLM_MLX_MODEL="org/wanted")
    assert f"the server at {user.url} serves scripted, not org/wanted" in done.stderr


def test_launchers_share_a_server_and_the_last_one_stops_it(user: Terminal) -> None:
    with (
        user.start(FAKE_NAME="one", FAKE_WAITS="1") as one,
        user.start(FAKE_NAME="two", FAKE_WAITS="1") as two,
    ):
        user.claude("one")
        user.claude("two")
        pid = user.server_pid()
        user.let_go("one")
        assert one.wait(timeout=PATIENCE_SECONDS) == 0
        assert user.health()["status"] == "healthy"
        assert user.server_pid() == pid
        user.let_go("two")
        assert two.wait(timeout=PATIENCE_SECONDS) == 0
    assert gone(user)
    logs = list((user.home / ".anyclaude" / "logs").iterdir())
    assert [log.read_text().count("Serving") for log in logs] == [1]


def test_a_server_that_dies_under_claude_code_is_no_trouble_at_the_end(user: Terminal) -> None:
    with user.start(FAKE_WAITS="1", FAKE_EXIT="3") as launcher:
        user.claude()
        os.kill(user.server_pid(), signal.SIGKILL)
        until(lambda: gone(user), "the server to die")
        user.let_go()
        _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGHUP")]
)
def test_without_a_terminal_signals_are_passed_on(user: Terminal, number: signal.Signals, name: str) -> None:
    with user.start(FAKE_WAITS="1") as launcher:
        user.claude()
        launcher.send_signal(number)
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 9
    assert user.signals() == [name]
    assert gone(user)


def test_claude_code_ended_by_a_signal_gives_the_shells_exit_code(user: Terminal) -> None:
    with user.start(FAKE_WAITS="1") as launcher:
        os.kill(user.claude()["pid"], signal.SIGKILL)
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGKILL
    assert gone(user)


def test_a_suspended_claude_code_suspends_the_launcher(user: Terminal) -> None:
    with user.start(FAKE_STOPS="1") as launcher:
        _, status = os.waitpid(launcher.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        launcher.send_signal(signal.SIGCONT)
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 0
    assert user.signals() == ["SIGCONT"]


def test_ctrl_c_reaches_claude_code_once(user: Terminal) -> None:
    """In a terminal the whole foreground group gets it, so the launcher must not pass it on again."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(user.cwd)
        os.execve(user.command()[0], user.command(), user.environment | {"FAKE_WAITS": "1"})  # noqa: S606
    with open(terminal, "r+b", buffering=0) as screen:
        user.claude()
        screen.write(b"\x03")
        drain = threading.Thread(target=_read_all, args=(screen,))
        drain.start()
        _, status = os.waitpid(pid, 0)
        drain.join()
    assert os.waitstatus_to_exitcode(status) == 9
    assert user.signals() == ["SIGINT"]
    assert gone(user)


def _read_all(screen: object) -> None:
    try:
        while screen.read(4096):  # type: ignore[attr-defined]
            pass
    except OSError:  # the terminal has closed
        return


def test_proxy_only_serves_without_claude_code(terminal: Terminal) -> None:
    with terminal.start(PROXY_ONLY="true") as launcher:
        until(terminal.health, "the server")
        again = terminal.run(PROXY_ONLY="true")
        launcher.send_signal(signal.SIGTERM)
        out, _ = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 0
    assert "Serving" in out
    assert (again.returncode, again.stdout) == (0, f"A server is up at {terminal.url}: healthy, model scripted.\n")


def test_a_server_on_another_machine_is_used_and_said(user: Terminal) -> None:
    """0.0.0.0 stands for the other machine: it leads here, and is no loopback address."""
    url = f"http://0.0.0.0:{user.port}/v1"
    user.configure(executor="scripted", allowedHosts=["0.0.0.0"])
    with user.start("serve"):
        until(user.health, "the server")
        done = user.run(VLLM_MLX_URL=url)
    assert done.returncode == 0
    assert done.stderr == f"Using the server at http://0.0.0.0:{user.port}, which is not on this machine: scripted.\n"
    assert user.claude()["environment"]["ANTHROPIC_BASE_URL"] == f"http://0.0.0.0:{user.port}"


def test_a_server_on_another_machine_is_never_started(user: Terminal) -> None:
    done = user.run(VLLM_MLX_URL=f"http://0.0.0.0:{user.port}/v1")
    assert done.returncode == 69
    assert "not on this machine, so none is started" in done.stderr
    assert not (user.home / ".anyclaude").exists()


def test_claude_code_that_is_not_installed_is_said_before_a_server_is_started(terminal: Terminal) -> None:
    done = terminal.run("-p", "hello")
    assert done.returncode == 127
    assert "npm install -g @anthropic-ai/claude-code" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (terminal.home / ".anyclaude").exists()


@pytest.mark.parametrize("home", ["/proc/nope/home", "{folder}/home/file", "{folder}/home/locked"])
def test_a_home_that_cannot_be_written_is_one_line(user: Terminal, home: str) -> None:
    (user.home / "file").touch()
    (user.home / "locked" / "run" / f"{user.port}.order").mkdir(parents=True)  # no lock file can be there
    home = home.format(folder=user.folder)
    done = user.run(ANYCLAUDE_HOME=home)
    assert done.returncode == 78
    assert " cannot be written: " in done.stderr
    assert f"Make {home} writable, or name another place with ANYCLAUDE_HOME.\n" in done.stderr
    assert len(done.stderr.splitlines()) == 1


class _Stranger(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answers.get(self.path, b"<html>It works!</html>"))

    def log_message(self, format: str, *args: object) -> None:
        return None


class _SmallModel(_Stranger):
    answers: ClassVar[dict[str, bytes]] = {
        "/health": b'{"status": "healthy", "model": "small", "model_loaded": true, "cache": {}}',
        "/v1/models": b'{"data": [{"id": "small", "context_length": 8192}]}',
    }


@contextmanager
def stranger(port: int, kind: type[_Stranger] = _Stranger) -> Iterator[None]:
    with http.server.HTTPServer(("127.0.0.1", port), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_model_too_small_for_claude_code_is_said(user: Terminal) -> None:
    with stranger(user.port, _SmallModel):
        done = user.run("-p", "hello")
    assert done.returncode == 0
    assert done.stderr.startswith(
        "Note: small reads 8,192 tokens, and Claude Code alone sends about 12,000, so it cannot answer."
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_something_else_uses(user: Terminal) -> None:
    with stranger(user.port):
        done = user.run()
    assert done.returncode == 75
    assert f"What answers at {user.url} is not anyclaude" in done.stderr
    assert "choose another port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_stranger_on_another_machine_is_not_answered_with_ports_of_this_one(user: Terminal) -> None:
    with stranger(user.port):
        done = user.run(VLLM_MLX_URL=f"http://0.0.0.0:{user.port}/v1")
    assert done.returncode == 75
    assert done.stderr.endswith("Change VLLM_MLX_URL or baseUrl.\n")
    assert "localhost" not in done.stderr


def test_https_to_a_server_of_http_is_named(user: Terminal) -> None:
    with stranger(user.port):
        done = user.run(VLLM_MLX_URL=f"https://127.0.0.1:{user.port}/v1")
    assert done.returncode == 75
    assert "HTTPS fails with it (WRONG_VERSION_NUMBER); it may speak HTTP." in done.stderr


def test_a_server_that_never_answers(user: Terminal) -> None:
    user.configure(startupTimeoutSeconds=0.5)
    with socket.create_server(("127.0.0.1", user.port)):
        done = user.run()
    assert done.returncode == 69
    assert f"Something listens at {user.url} and does not answer: waiting up to 0.5 s\n" in done.stderr
    assert "Server did not respond in timeout (0.5 s)" in done.stderr


def test_a_server_that_takes_too_long_to_start_is_stopped_and_its_log_shown(user: Terminal) -> None:
    user.configure(executor="scripted", startupTimeoutSeconds=0.001)
    done = user.run()
    assert done.returncode == 69
    assert "Server did not respond in timeout (0.001 s)" in done.stderr
    assert f"Its log: {user.home}" in done.stderr
    assert gone(user)


def test_the_launcher_can_be_ended_while_it_waits(user: Terminal) -> None:
    with socket.create_server(("127.0.0.1", user.port)) as silent, user.start() as launcher:
        silent.accept()[0].close()
        silent.accept()[0].close()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGTERM


@pytest.fixture
def never_loading(user: Terminal) -> Iterator[Terminal]:
    """The server asks a hub for its model that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        user.environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "NO_PROXY": "127.0.0.1"}
        user.configure(model="org/name")
        yield user


def starting_server(user: Terminal) -> int:
    lock = user.home / ".anyclaude" / "run" / f"{user.port}.server"
    return int(until(lambda: lock.exists() and lock.read_text(), "the server to be started"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_started_is_stopped_when_the_launcher_is_ended_before_it_is_healthy(
    never_loading: Terminal, number: signal.Signals
) -> None:
    with never_loading.start() as launcher:
        pid = starting_server(never_loading)
        launcher.send_signal(number)
        _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 128 + number
    assert "Stopping the server that was started.\n" in err
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_is_killed_while_it_starts(never_loading: Terminal) -> None:
    with never_loading.start() as launcher:
        os.kill(starting_server(never_loading), signal.SIGKILL)
        _, err = launcher.communicate(timeout=PATIENCE_SECONDS)
    assert launcher.returncode == 69
    assert "The server ended while it was starting (signal 9): it said nothing" in err
    assert f"Its log: {never_loading.home}" in err


DYING = [
    ({"model": "/no/such/model"}, 66, "Error: Model path does not exist: /no/such/model"),
    ({"model": "qwen3:0.6b"}, 66, "Error: Model path does not exist: qwen3:0.6b\n"),
    ({"executor": "scripted", "cache": ["nothing://"]}, 78, "nothing"),
]


@pytest.mark.parametrize(("keys", "code", "message"), DYING)
def test_a_server_that_cannot_start(user: Terminal, keys: dict[str, object], code: int, message: str) -> None:
    user.configure(**keys)
    done = user.run()
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (user.folder / "claude.json").exists()


def test_a_server_that_refuses_is_quoted(user: Terminal) -> None:
    """Its own words say what to do: here, that it is asked under a name that it does not know."""
    with user.start("serve"):
        until(user.health, "the server")
        done = user.run(VLLM_MLX_URL=f"http://0.0.0.0:{user.port}/v1")
    assert done.returncode == 69
    assert f"The server at http://0.0.0.0:{user.port} refuses to answer: " in done.stderr
    assert "add it to allowedHosts" in done.stderr


def test_a_wrong_configuration(user: Terminal) -> None:
    user.configuration.write_text(json.dumps({"backends": {"vllm-mlx": {"prot": 1}}}))
    done = user.run()
    assert done.returncode == 78
    assert 'unknown key "prot". Did you mean "port"?' in done.stderr


def test_a_misspelt_command_starts_nothing(user: Terminal) -> None:
    done = user.run("statss")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no command 'statss'. Did you mean 'anyclaude stats'? ")
    assert done.stderr.endswith("anyclaude -- statss\n")
    assert not (user.home / ".anyclaude").exists()


def test_an_unknown_mode(user: Terminal) -> None:
    done: subprocess.CompletedProcess[str] = user.run("--mode=lmstudio")
    assert done.returncode == 2
    assert done.stderr == "Error: Expected --mode=vllm-mlx, found --mode=lmstudio. There is no other backend.\n"
