"""`anyclaude serve`, in its own process, over real sockets."""

import json
import resource
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from service.config.keys import SETTING_KEYS
from tests.cli.terminal import Terminal
from tests.models.test_folder import write_model
from tests.patience import PATIENCE_SECONDS, until


def test_it_says_what_it_serves_and_where_and_ends_when_told(terminal: Terminal) -> None:
    with terminal.start("serve") as server:
        assert until(terminal.health, "the server")["status"] == "healthy"
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=PATIENCE_SECONDS)
    assert server.returncode == 0
    assert "Serving the scripted executor" in out
    assert f"at {terminal.url}" in out
    assert terminal.health() is None


def test_it_answers(terminal: Terminal) -> None:
    body = {"messages": [{"role": "user", "content": "Say this"}]}
    with terminal.start("serve"):
        until(terminal.health, "the server")
        answer = terminal.post("/v1/chat/completions", body).json()
    assert answer["choices"][0]["message"]["content"] == "Say this"


def test_a_free_port_is_found_and_said(terminal: Terminal) -> None:
    with terminal.start("serve", "--port", "0") as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(3)]
        address = lines[1].removeprefix("at ").split()[0].rstrip(".")
        assert httpx.get(f"{address}/health", trust_env=False, timeout=PATIENCE_SECONDS).json()["model_loaded"] is True
    assert f"VLLM_MLX_URL={address}/v1 anyclaude" in lines[2]


def test_log_lines_are_json_on_demand(terminal: Terminal) -> None:
    with terminal.start("serve", "--log-format", "json", "--debug", "1") as server:
        until(terminal.health, "the server")
        terminal.post("/v1/chat/completions", {"messages": 3})
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=PATIENCE_SECONDS)
    records = [json.loads(line) for line in err.splitlines()]
    (request,) = [record for record in records if record["logger"] == "anyclaude.request"]
    assert (request["level"], request["status"], request["dialect"]) == ("INFO", 400, "openai_chat")


def test_a_port_in_use_is_one_line(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", terminal.port)):
        done = terminal.run("serve")
    assert done.returncode == 75
    assert done.stderr.startswith(f"Error: Cannot listen on 127.0.0.1:{terminal.port}: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_second_model_with_the_id_of_the_default_is_refused(terminal: Terminal) -> None:
    twin = str(write_model(terminal.home / "twin"))
    terminal.configure(model=twin, models={"small": {"model": twin}, "twin": {"model": twin}})
    done = terminal.run("serve")
    assert done.returncode == 78
    assert done.stderr.startswith("Error: expected another name than 'twin' in 'models': ")
    assert len(done.stderr.splitlines()) == 1


def test_a_server_of_ours_on_the_port_is_named(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        done = terminal.run("serve")
    assert done.returncode == 75
    assert done.stderr.endswith(
        "It is an anyclaude server, healthy, with the model scripted: "
        f"'VLLM_MLX_URL={terminal.url}/v1 anyclaude' uses it as it is.\n"
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_url_of_another_machine_is_not_taken_for_the_place_to_listen_on(terminal: Terminal) -> None:
    with terminal.start("serve", VLLM_MLX_URL="http://gpu.example:9000/v1") as server:
        until(terminal.health, "the server")
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=PATIENCE_SECONDS)
    note = f"Note: VLLM_MLX_URL is for clients; this server listens on 127.0.0.1:{terminal.port}.\n"
    assert err.startswith(note)


def test_where_nobody_can_listen_is_one_line(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", requireApiKey=True, apiKey="a secret", host="192.0.2.1")
    done = terminal.run("serve")
    assert done.returncode == 78
    assert done.stderr.startswith(f"Error: Cannot listen on 192.0.2.1:{terminal.port}: ")
    assert done.stderr.endswith("Correct --host or --port.\n")
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def half_a_request(terminal: Terminal) -> Iterator[None]:
    """A request whose body does not come: it keeps a server that is to stop from having nothing to do."""
    head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n"
    with socket.create_connection(("127.0.0.1", terminal.port)) as connection:
        connection.sendall(f"{head}expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 100")
        yield


def test_what_is_open_when_the_time_is_over_leaves_no_traceback(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", shutdownGraceSeconds=0)
    with terminal.start("serve") as server:
        until(terminal.health, "the server")
        with half_a_request(terminal):
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=PATIENCE_SECONDS)
    assert server.returncode == 0
    assert "Traceback" not in err
    assert " ERROR " not in err


def test_a_second_signal_ends_it_at_once(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", shutdownGraceSeconds=600)
    with terminal.start("serve") as server:
        until(terminal.health, "the server")
        with half_a_request(terminal):
            server.send_signal(signal.SIGTERM)
            assert server.stderr is not None
            until(lambda: "stopping" in server.stderr.readline(), "the server to begin to stop")
            server.send_signal(signal.SIGINT)
            _, err = server.communicate(timeout=PATIENCE_SECONDS)
    assert server.returncode == -signal.SIGINT
    assert "Traceback" not in err


@pytest.mark.model
def test_a_model_that_still_computes_when_the_time_is_over_ends_without_a_crash(
    terminal: Terminal, demo_model: Path
) -> None:
    terminal.configure(model=str(demo_model), shutdownGraceSeconds=0)
    body = {"messages": [{"role": "user", "content": "Write a long story."}], "max_tokens": 2000}
    # Warnings are no errors: they are of libraries that load the model.
    with terminal.start("serve", PYTHONWARNINGS="default") as server, ThreadPoolExecutor(2) as clients:
        until(lambda: (terminal.health() or {}).get("model_loaded"), "the model")
        url = f"{terminal.url}/v1/chat/completions"
        answers = [
            clients.submit(httpx.post, url, json={**body, "seed": i}, timeout=PATIENCE_SECONDS) for i in range(2)
        ]
        until(lambda: terminal.health()["running"] == 2, "two answers to begin")
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=PATIENCE_SECONDS)
        assert [answer.result().status_code for answer in answers] == [503, 503]
    assert server.returncode == 0, err
    assert "Traceback" not in err


def test_more_connections_than_files_at_the_start_are_taken(terminal: Terminal) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        starting = terminal.start("serve")
        with starting as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            until(terminal.health, "the server")
            with ExitStack() as connections:
                for _ in range(200):
                    connections.enter_context(socket.create_connection(("127.0.0.1", terminal.port)))
                until(terminal.health, "an answer beside all of them")
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=PATIENCE_SECONDS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert " ERROR " not in err


WRONG = [
    (["--cache", "ftp://x"], 78, "--cache: expected a cache URL that begins with one of"),
    (["--cache-policy", "some"], 78, '--cache-policy: expected "all" or "deterministic" or "off", found "some"'),
    (["--config", "nothing.json"], 78, "nothing.json: cannot be read"),
    (["--port", "x"], 2, "'x' is not a valid integer"),
    (["--host", "0.0.0.0"], 78, "which others can reach"),
    (["--executor", "mlx", "/no/such/model"], 66, "Model path does not exist: /no/such/model"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG)
def test_what_is_wrong_is_said_without_a_traceback(
    terminal: Terminal, arguments: list[str], code: int, message: str
) -> None:
    done = terminal.run("serve", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_every_setting_has_an_option_or_is_none_of_serves(terminal: Terminal) -> None:
    shown = terminal.run("serve", "--help").stdout
    missing = {key.field for key in SETTING_KEYS if key.option is None}
    own = {
        "aliases",
        "api_key",
        "base_url",
        "model",
        "models",
        "proxy_only",
        "startup_timeout_seconds",
        "thinking_budgets",
    }
    assert missing == own
    assert all(f"{key.option} " in shown for key in SETTING_KEYS if key.option)
    assert "The port to listen on; 0 takes a free one. [default: 8081]" in " ".join(shown.split())


def test_options_of_every_kind_are_in_force(terminal: Terminal) -> None:
    options = ["--top-p", "0.5", "--prefix-disk", "2GiB", "--no-dequantize-on-cpu", "--cache", "memory://"]
    with terminal.start("serve", *options, "--max-queue", "7"):
        until(terminal.health, "the server")
        found = json.loads(terminal.run("stats", "--json").stdout)["settings"]
    keys = ("sampling.topP", "prefixCache.disk", "dequantizeOnCpu", "cache", "maxQueue")
    assert [found[f"backends.vllm-mlx.{key}"] for key in keys] == [0.5, "2GiB", False, ["memory://"], 7]
