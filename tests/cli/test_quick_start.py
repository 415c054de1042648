"""The quick start line by line: its commands, variables, keys and outputs, as a user's shell runs them.

Its two scripts are in `test_quick_start_scripts.py`, the set-up is in `tests/test_setup_script.py`.
"""

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.patience import until

KEYS = ["hits", "misses", "total_requests", "hit_rate", "cached_items"]


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    terminal.install_claude()
    (terminal.bin / "anyclaude").write_text(f'#!/bin/sh\nexec {terminal.command()[0]} -m service.cli "$@"\n')
    (terminal.bin / "anyclaude").chmod(0o755)
    return terminal


@pytest.fixture
def served(user: Terminal) -> Iterator[Terminal]:
    with user.start("serve"):
        until(user.health, "the server")
        yield user


def shell(user: Terminal, line: str) -> "subprocess.CompletedProcess[str]":
    """Runs a line of the quick start, whose server is at `$URL`."""
    return subprocess.run(
        ["/bin/bash", "-c", line],
        cwd=user.cwd,
        env=user.environment | {"URL": user.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=user.patience_seconds,
    )


def ask(user: Terminal, text: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    body = json.dumps({"messages": [{"role": "user", "content": text}], **fields})
    done = shell(user, f"curl -s -i $URL/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")
    head, _, answer = done.stdout.partition("\n\n" if "\r\n" not in done.stdout else "\r\n\r\n")
    outcome = next(line for line in head.splitlines() if line.lower().startswith("cache-status: "))
    return outcome.partition(": ")[2].strip(), json.loads(answer)


@pytest.mark.parametrize(
    "document",
    [
        '{"backend": "vllm-mlx", "debug": {"level": 1}, "backends": {"vllm-mlx": {"enabled": true, "apiKey": "x",'
        '"executor": "scripted", "baseUrl": "http://localhost:PORT/v1", "model": "current-model"}}}',
        '{"backends": {"vllm-mlx": {"port": PORT, "executor": "scripted"}}}',
    ],
    ids=["with all keys", "short"],
)
@pytest.mark.parametrize("command", ["anyclaude", "anyclaude --mode=vllm-mlx", "anyclaude --mode vllm-mlx"])
def test_claude_code_starts_on_the_configured_server(user: Terminal, document: str, command: str) -> None:
    user.configuration.write_text(document.replace("PORT", str(user.port)))
    done = shell(user, command)
    assert done.returncode == 0, done.stderr
    assert user.claude()["health"]["status"] == "healthy"
    assert user.health() is None


def test_a_model_that_is_not_there_is_named(user: Terminal) -> None:
    user.configure(model="/path/to/your/mlx/model")
    for command in ("anyclaude", "anyclaude serve"):
        done = shell(user, command)
        assert done.returncode == 66
        assert "Error: Model path does not exist: /path/to/your/mlx/model\n" in done.stderr


def test_other_modes_are_refused_in_one_line_that_names_this_command(user: Terminal) -> None:
    done = shell(user, "anyclaude --mode=claude")
    assert done.returncode == 2
    assert "launch" not in done.stderr
    assert "vllm-mlx" in done.stderr


@pytest.mark.parametrize("suffix", ["/v1", "/v1/", ""])
def test_the_proxy_alone_listens_where_the_variable_says(user: Terminal, suffix: str) -> None:
    user.configuration.write_text('{"backends": {"vllm-mlx": {"executor": "scripted"}}}')
    line = ("--mode=vllm-mlx",)
    with user.start(*line, PROXY_ONLY="true", VLLM_MLX_URL=f"http://localhost:{user.port}{suffix}") as proxy:
        assert until(user.health, "the proxy")["model"] == "scripted"
        proxy.send_signal(signal.SIGINT)
        proxy.communicate(timeout=user.patience_seconds)
    assert not (user.folder / "claude.json").exists()


def test_the_variables_of_the_environment_are_in_force(user: Terminal) -> None:
    user.configuration.write_text('{"backends": {"vllm-mlx": {"executor": "scripted"}}}')
    variables = f"export VLLM_MLX_URL=http://localhost:{user.port}/v1 VLLM_MLX_MODEL=current-model ANYCLAUDE_DEBUG=1"
    done = shell(user, f"{variables}; anyclaude config --json; anyclaude -p hello")
    assert done.returncode == 0, done.stderr
    report = user.claude()
    assert report["environment"]["ANTHROPIC_BASE_URL"].endswith(f":{user.port}")
    assert report["arguments"][-2:] == ["-p", "hello"]
    assert json.loads(done.stdout)["debug.level"] == {"value": 1, "from": "ANYCLAUDE_DEBUG"}


def test_health_shows_the_response_cache_in_this_order(served: Terminal) -> None:
    for _ in range(3):
        ask(served, "What is the capital of France?", temperature=0)
    health = json.loads(shell(served, "curl -s $URL/health").stdout)
    assert list(health)[:4] == ["status", "model", "model_loaded", "cache"]
    assert (health["status"], health["model_loaded"]) == ("healthy", True)
    assert list(health["cache"]) == KEYS
    assert list(health["cache"].values()) == [2, 1, 3, "66.7%", 1]


def test_messages_and_tools_together_decide_a_hit(served: Terminal) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    outcomes = [ask(served, "hello", **fields)[0] for fields in ({}, {}, {"tools": [tool]}, {"tools": [tool]})]
    miss, hit = "anyclaude; fwd=uri-miss; stored", "anyclaude; hit"
    assert outcomes == [miss, hit, miss, hit]


def test_the_arguments_of_a_call_are_json_text(served: Terminal) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    _, answer = ask(served, "The weather in Paris?", tools=[tool], tool_choice="required")
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "get_weather", "arguments": "{}"})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_32_answers_are_kept_and_the_least_recently_used_goes(served: Terminal) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: ask(served, f"question {number}"), range(32)))
    assert ask(served, "question 0")[0] == "anyclaude; hit"  # now another one is the oldest
    ask(served, "one more")
    health = served.health()
    assert health["cache"]["cached_items"] == 32
    assert ask(served, "question 0")[0] == "anyclaude; hit"


def test_two_requests_run_at_a_time(served: Terminal) -> None:
    settings = json.loads(shell(served, "anyclaude stats --json").stdout)["settings"]
    assert settings["backends.vllm-mlx.maxConcurrency"] == 2
    assert settings["backends.vllm-mlx.cache"] == ["memory://?max_items=32"]


def test_models_are_listed_and_a_request_needs_none(served: Terminal) -> None:
    models = json.loads(shell(served, "curl -s $URL/v1/models").stdout)
    assert [model["id"] for model in models["data"]] == ["scripted"]
    for model in ("scripted", "default", "current-model", "claude-sonnet-4-5"):
        assert ask(served, "hello", model=model)[1]["model"] == model
    assert ask(served, "hello")[1]["choices"][0]["message"]["content"] == "hello"


def test_level_2_writes_traces(user: Terminal) -> None:
    with user.start("serve", ANYCLAUDE_DEBUG="2"):
        until(user.health, "the server")
        ask(user, "a question")
        folder = Path(user.home, ".anyclaude", "traces")
        (trace,) = until(lambda: [path for path in folder.glob("*.json") if path.stat().st_size], "a trace")
    assert json.loads(trace.read_text())["request"]["body"]["messages"][0]["content"] == "a question"


def test_watch_can_repeat_the_health_line(served: Terminal) -> None:
    done = shell(served, "for _ in 1 2 3; do curl -s $URL/health | python3 -m json.tool || exit 1; done")
    assert (done.returncode, done.stdout.count('"hit_rate": "0.0%"')) == (0, 3)
