"""The commands that look after a server: config, stats, cache, doctor."""

import asyncio
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cache_backends import open_backend
from service.generation import Choice, Completion, Text, Usage
from service.response_cache.record import AnswerRecord, encode_record
from tests.cli.screen import on_screen
from tests.cli.terminal import Terminal
from tests.cli.test_client import answering_once
from tests.patience import PATIENCE_SECONDS, until

ANSWER = Completion(
    choices=(Choice(parts=(Text("Paris"),), finish_reason="stop"),),
    usage=Usage(prompt_tokens=1, completion_tokens=1),
)


def test_config_says_where_each_value_came_from(terminal: Terminal) -> None:
    terminal.configure(
        apiKey="do not show", maxQueue=7, cache=["redis://me:hunter2@box/0"], prefixCache={"memory": "2GiB"}
    )
    done = terminal.run("config", "--json", VLLM_MLX_MODEL="demo")
    shown = json.loads(done.stdout)
    file = str(terminal.configuration)
    assert shown["backends.vllm-mlx.maxQueue"] == {"value": 7, "from": f"{file} backends.vllm-mlx.maxQueue"}
    assert shown["backends.vllm-mlx.model"] == {"value": "demo", "from": "VLLM_MLX_MODEL"}
    assert shown["backends.vllm-mlx.host"] == {"value": "127.0.0.1", "from": "default"}
    assert shown["backends.vllm-mlx.prefixCache.memory"]["value"] == "2GiB"
    assert shown["backends.vllm-mlx.apiKey"]["value"] == "(set, not shown)"
    assert shown["backends.vllm-mlx.cache"]["value"] == ["redis://me:***@box/0"]


def test_config_for_people_shows_no_secret_and_cuts_no_key(terminal: Terminal) -> None:
    terminal.configure(apiKey="do not show")
    done = terminal.run("config", COLUMNS="40")
    assert "do not show" not in done.stdout
    assert "backends.vllm-mlx.keepAliveIntervalSeconds" in done.stdout
    assert all(len(line.split()) >= 3 for line in done.stdout.splitlines())


def test_stats(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        fresh = terminal.run("stats")
        for _ in range(4):
            terminal.post("/v1/chat/completions", OPENAI).raise_for_status()
        done = terminal.run("stats", COLUMNS="80")
        as_json = terminal.run("stats", "--json")
    assert "0.0% hits: 0 of 0 requests, 0 answers kept" in fresh.stdout
    assert "none in 5 min" in fresh.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["Server", f"{terminal.url}:", "healthy,"]
    assert lines[1] == ["Model", "scripted"]
    assert lines[2] == ["Generating", "0", "running", "of", "2,", "0", "waiting", "of", "64"]
    assert lines[3] == ["Response", "cache", "75.0%", "hits:", "3", "of", "4", "requests,", "1", "answer", "kept"]
    assert "3 hits, 1 miss in 5 min" in done.stdout
    assert [line[1] for line in lines[-4:]] == ["hit", "hit", "hit", "miss"]
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert json.loads(as_json.stdout)["cache"]["hit_rate"] == "75.0%"


def test_an_encoding_without_bars_is_no_reason_to_fail(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        terminal.post("/v1/chat/completions", OPENAI).raise_for_status()
        done = terminal.run("stats", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r" \? *\|", done.stdout)  # the chart may have moved on by a slot since the request


def test_stats_with_a_key(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", requireApiKey=True, apiKey="open-sesame")
    with terminal.start("serve"):
        until(terminal.health, "the server")
        done = terminal.run("stats")
        terminal.configure(executor="scripted", requireApiKey=True, apiKey="wrong")
        refused = terminal.run("stats")
    assert "healthy" in done.stdout
    assert refused.returncode == 69
    assert "The API key is not one of this server's" in refused.stderr


def test_stats_are_watched_until_told_to_stop(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        with terminal.start("stats", "--watch", "--interval", "0.1", "--json") as watching:
            assert watching.stdout is not None
            assert [json.loads(watching.stdout.readline())["status"] for _ in range(3)] == ["healthy"] * 3


def test_watching_ends_with_sigint_also_as_a_background_job(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        with subprocess.Popen(
            terminal.command("stats", "--watch", "--interval", "0.1", "--json"),
            cwd=terminal.cwd,
            env=terminal.environment,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        ) as watching:
            assert watching.stdout is not None
            watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            assert watching.wait(timeout=PATIENCE_SECONDS) == 0


def test_watching_outlives_its_server_and_ends_while_the_server_hangs(terminal: Terminal) -> None:
    with on_screen(terminal, "stats", "--watch", "--interval", "0.1") as screen:
        screen.until("No server answers")
        with terminal.start("serve") as server:
            until(terminal.health, "the server")
            screen.until("0 of 0 requests")
            server.send_signal(signal.SIGSTOP)
            screen.until("does not answer: no answer in time")
            screen.interrupt()
            assert screen.end() == 0
            server.send_signal(signal.SIGCONT)


def test_stats_of_a_server_that_hangs_up(terminal: Terminal) -> None:
    with answering_once(b"") as url:
        done = terminal.run("stats", "--url", url)
    assert done.returncode == 69
    assert done.stderr.endswith("does not answer: it hung up before it answered.\n")


def test_stats_on_a_terminal_follow_until_ctrl_c(terminal: Terminal) -> None:
    watch = ("stats", "--watch", "--interval", "0.1")
    with terminal.start("serve"):
        until(terminal.health, "the server")
        with on_screen(terminal, *watch, COLUMNS="80", LINES="24") as screen:
            screen.until("0 of 0 requests")
            terminal.post("/v1/chat/completions", OPENAI).raise_for_status()
            screen.until("0 of 1 request,")
            screen.interrupt()
            assert screen.end() == 0


def test_stats_without_a_server(terminal: Terminal) -> None:
    done = terminal.run("stats")
    assert done.returncode == 69
    assert done.stderr == (
        f"Error: No server answers at {terminal.url}. Start one with 'anyclaude serve', or say where it is with --url "
        "or VLLM_MLX_URL.\n"
    )


def test_stats_of_a_server_that_is_named(terminal: Terminal) -> None:
    with terminal.start("serve", "--port", "0") as server:
        assert server.stdout is not None
        url = [server.stdout.readline() for _ in range(2)][1].removeprefix("at ").split()[0].rstrip(".")
        done = terminal.run("stats", "--url", url)
    assert f"{url}: healthy" in done.stdout
    assert terminal.run("stats", "--url", "x").stderr.startswith('Error: --url: expected a URL like "http://localhost')


def test_what_serves_by_another_file_is_looked_after_by_it(terminal: Terminal, store: str) -> None:
    other = terminal.folder / "other.json"
    terminal.configuration.rename(other)
    document = json.loads(other.read_text())
    document["backends"]["vllm-mlx"]["cache"] = [store]
    other.write_text(json.dumps(document))
    with terminal.start("serve", "--config", str(other)):
        until(terminal.health, "the server")
        assert f"{terminal.url}: healthy" in terminal.run("stats", "--config", str(other)).stdout
        assert f"a server is at {terminal.url}" in terminal.run("doctor", "--config", str(other)).stdout
    assert terminal.run("cache", "stats", "--config", str(other)).stdout.startswith("disk: 2 answers")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A disk store with one answer under `known` and one value that is none under `damaged`."""
    url = f"disk://{tmp_path}/store"
    asyncio.run(
        fill(url, known=encode_record(AnswerRecord("known", 1_700_000_000.0, ANSWER)), damaged=b"nothing of ours")
    )
    return url


async def fill(url: str, **values: bytes) -> None:
    backend = open_backend(url)
    for key, value in values.items():
        await backend.set(key, value)
    await backend.aclose()


def test_cache_stats_and_clear(terminal: Terminal, store: str) -> None:
    terminal.configure(cache=["memory://", store])
    assert terminal.run("cache", "stats").stdout.startswith("disk: 2 answers, ")
    assert terminal.run("cache", "clear", "--yes").stdout == "2 answers removed.\n"
    assert json.loads(terminal.run("cache", "stats", "--json").stdout)["items"] == 0


def test_cache_clear_asks_first(terminal: Terminal, store: str) -> None:
    done = terminal.run("cache", "clear", "--cache", store)
    assert done.returncode == 1
    assert terminal.run("cache", "stats", "--cache", store).stdout.startswith("disk: 2 answers")


def test_cache_get(terminal: Terminal, store: str) -> None:
    answer = json.loads(terminal.run("cache", "get", "known", "--cache", store).stdout)
    assert answer["stored_at"] == 1_700_000_000.0
    assert answer["completion"]["choices"][0]["parts"] == [{"type": "text", "text": "Paris"}]


@pytest.mark.parametrize(
    ("key", "message"), [("unknown", "nothing is stored"), ("damaged", "what is stored is no whole answer")]
)
def test_cache_get_of_what_is_not_there(terminal: Terminal, store: str, key: str, message: str) -> None:
    done = terminal.run("cache", "get", key, "--cache", store)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {key}: {message}")


def test_the_beginning_of_two_keys_is_not_enough(terminal: Terminal, tmp_path: Path) -> None:
    store = f"disk://{tmp_path}/two"
    asyncio.run(
        fill(store, **{key: encode_record(AnswerRecord(key, 1_700_000_000.0, ANSWER)) for key in ("aaa1", "aaa2")})
    )
    done = terminal.run("cache", "delete", "aaa", "--cache", store)
    assert done.stderr == "Error: 2 keys begin with aaa. Type more of the one that you mean.\n"
    assert terminal.run("cache", "delete", "aaa2", "--cache", store).stdout == "1 answer removed.\n"


def test_a_store_in_memory_needs_its_server(terminal: Terminal) -> None:
    done = terminal.run("cache", "stats")
    assert done.returncode == 1
    assert f"in the server's memory, and no server runs at {terminal.url}" in done.stderr


def test_a_running_server_is_asked_for_its_cache(terminal: Terminal, store: str) -> None:
    terminal.configure(executor="scripted", cache=["memory://", store])
    with terminal.start("serve"):
        until(terminal.health, "the server")
        statuses = [_ask(terminal), _ask(terminal)]
        listed = [json.loads(line) for line in terminal.run("cache", "list", "--json").stdout.splitlines()]
        assert [answer["stored_at"] for answer in listed][1:] == [1_700_000_000.0]
        key = listed[0]["key"]
        for start in (key, key[:12]):
            assert json.loads(terminal.run("cache", "get", start).stdout)["completion"]["choices"]
        assert terminal.run("cache", "get", "unknown").stderr.startswith("Error: Under the key 'unknown' no answer")
        assert terminal.run("cache", "stats").stdout.startswith("tiered: 3 answers, ")
        assert terminal.run("cache", "delete", "known").stdout == "1 answer removed.\n"
        assert terminal.run("cache", "clear", "--yes").stdout == "2 answers removed.\n"
        statuses.append(_ask(terminal))
    # A slow disk has not stored it yet.
    miss = "anyclaude; fwd=uri-miss"
    assert [status.removesuffix("; stored") for status in statuses] == [miss, "anyclaude; hit", miss]


def test_a_key_is_deleted_from_the_stores(terminal: Terminal, store: str) -> None:
    assert terminal.run("cache", "delete", "known", "--cache", store).stdout == "1 answer removed.\n"
    done = terminal.run("cache", "delete", "known", "--cache", store)
    assert (done.returncode, done.stderr) == (1, "Error: known: nothing is stored.\n")


def _ask(terminal: Terminal) -> str:
    response = terminal.post("/v1/chat/completions", OPENAI)
    return str(response.headers["cache-status"])


OPENAI: dict[str, Any] = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
ANTHROPIC: dict[str, Any] = {**OPENAI, "max_tokens": 5, "system": "Be terse.", "metadata": {"user_id": "1"}}
TRACE = {"request": {"path": "/v1/messages?beta=true", "body": ANTHROPIC}}

SAME = "The two requests are the same for both caches: one key, one prompt.\n"
EXPLAINED: list[tuple[Any, Any, str]] = [
    (OPENAI, {**OPENAI, "stream": True, "user": "x"}, SAME),
    (ANTHROPIC, {**ANTHROPIC, "metadata": {"user_id": "2"}}, SAME),
    (ANTHROPIC, TRACE, SAME),
    (OPENAI, {**OPENAI, "temperature": 0.5}, "First: sampling.temperature\n         A: 0.0\n         B: 0.5\n"),
    (ANTHROPIC, {**ANTHROPIC, "system": "Be kind."}, "First: messages[0].content at character 3\n"),
    (
        {**OPENAI, "seed": 1, "temperature": 1},
        OPENAI,
        "They part in 2 places, so their response-cache keys differ.\nFirst: sampling.temperature\n",
    ),
]


@pytest.mark.parametrize(("a", "b", "expected"), EXPLAINED)
def test_cache_explain(terminal: Terminal, a: Any, b: Any, expected: str) -> None:
    for name, document in (("a.json", a), ("b.json", b)):
        (terminal.cwd / name).write_text(json.dumps(document))
    done = terminal.run("cache", "explain", "a.json", "b.json")
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    if expected != SAME:
        assert "Tokens are not compared: the demo model is not on this machine." in done.stdout


@pytest.mark.parametrize("text", ["{", "[]", '{"messages": 3}'])
def test_cache_explain_of_what_is_no_request(terminal: Terminal, text: str) -> None:
    (terminal.cwd / "a.json").write_text(text)
    done = terminal.run("cache", "explain", "a.json", "a.json")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: a.json: ")
    assert "Traceback" not in done.stderr


def test_cache_explain_of_a_trace_that_is_no_generation(terminal: Terminal) -> None:
    trace = {"request": {"method": "GET", "path": "/v1/models", "body": None}}
    (terminal.cwd / "a.json").write_text(json.dumps(trace))
    done = terminal.run("cache", "explain", "a.json", "a.json")
    assert done.returncode == 2
    assert done.stderr == "Error: a.json: a trace of GET /v1/models, which asks for no generation.\n"


def checked(terminal: Terminal, **variables: str) -> tuple[int, dict[str, Any]]:
    done = terminal.run("doctor", "--json", **variables)
    return done.returncode, {result["name"]: result for result in json.loads(done.stdout)}


def test_doctor_finds_what_is_there(terminal: Terminal) -> None:
    (terminal.bin / "claude").write_text("#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    (terminal.bin / "claude").chmod(0o755)
    code, results = checked(terminal)
    assert code == 0
    expected = {
        "Python",
        "MLX",
        "BLAS",
        "Claude Code",
        "Configuration",
        "Model",
        "Memory",
        "Response cache",
        "Port",
        "Disk space",
    }
    assert set(results) == expected
    assert {name for name, result in results.items() if result["status"] == "failed"} == set()
    assert results["Claude Code"]["found"] == f"2.1.197 (Claude Code) ({terminal.bin}/claude)"
    assert results["Port"]["found"] == f"{terminal.port} is free"


def test_doctor_says_where_each_value_came_from(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", apiKey="do not show", sampling={"topP": 0.9})
    (terminal.cwd / ".anyclauderc.json").write_text(json.dumps({"backends": {"vllm-mlx": {"maxQueue": 7}}}))
    _, results = checked(terminal, VLLM_MLX_MODEL="demo")
    parts = [part.partition(" from ") for part in results["Configuration"]["found"].split("; ")]
    assert {where: set(names.split(", ")) for names, _, where in parts} == {
        f"{terminal.cwd}/.anyclauderc.json": {"maxQueue"},
        "VLLM_MLX_MODEL": {"model"},
        str(terminal.configuration): {"executor", "apiKey", "sampling.topP", "port", "baseUrl"},
    }
    assert "do not show" not in str(results)


def test_doctor_says_what_to_do(terminal: Terminal) -> None:
    (terminal.bin / "claude").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    (terminal.bin / "claude").chmod(0o755)
    terminal.configure(model="/no/such/model", cache=["redis://127.0.0.1:1/0"], baseUrl="http://192.0.2.1:1/v1")
    code, results = checked(terminal, http_proxy="http://127.0.0.1:1")
    assert code == 1
    failed = {name for name, result in results.items() if result["status"] == "failed"}
    assert failed == {"Claude Code", "Model", "Response cache", "Port"}
    assert all(results[name]["advice"] for name in failed)
    assert results["Model"]["found"] == "Model path does not exist: /no/such/model"


def test_doctor_names_a_store_that_is_away_once(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", cache=["redis://127.0.0.1:1/0"])
    done = terminal.run("doctor")
    (line,) = [line for line in done.stdout.splitlines() if "Response cache" in line]
    assert line.startswith(" failed  Response cache: redis://127.0.0.1:1/0 does not answer: ")
    assert line.count("redis://") == 1
    assert done.stderr == ""


def test_doctor_looks_at_the_draft_model_too(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", draftModel="/no/such/model")
    _, results = checked(terminal)
    assert results["Draft model"]["status"] == "failed"
    assert results["Draft model"]["found"] == "Model path does not exist: /no/such/model"


@pytest.mark.parametrize("home", ["/proc/nope", "{folder}/home/file"])
def test_doctor_finds_a_home_that_cannot_be_written(terminal: Terminal, home: str) -> None:
    (terminal.home / "file").touch()
    home = home.format(folder=terminal.folder)
    code, results = checked(terminal, ANYCLAUDE_HOME=home)
    assert code == 1
    assert results["Disk space"]["found"].startswith(f"{home} cannot be written: ")


def test_doctor_goes_on_without_a_configuration_that_it_can_read(terminal: Terminal) -> None:
    terminal.configuration.write_text("{")
    done = terminal.run("doctor")
    assert done.returncode == 1
    assert " failed  Configuration: " in done.stdout
    assert "Python: 3." in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="macOS has no /dev/full")
def test_a_full_disk_behind_the_output_is_one_line(terminal: Terminal) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            terminal.command("config"),
            cwd=terminal.cwd,
            env=terminal.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "Error: The output cannot be written: No space left on device.\n")
