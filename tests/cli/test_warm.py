"""`anyclaude warm` and the setting of the same name, against a server that needs no model."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.cli.test_client import answering_once, http
from tests.patience import PATIENCE_SECONDS, until

OPENAI = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 9, "stream": True, "n": 2}
ANTHROPIC = {"system": "You are terse.", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 9}


def write(terminal: Terminal, name: str, content: Any) -> Path:
    file = terminal.cwd / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_posts_each_request_without_asking_for_an_answer(terminal: Terminal) -> None:
    openai, anthropic = write(terminal, "a.json", OPENAI), write(terminal, "b.json", ANTHROPIC)
    trace = write(terminal, "c.json", {"request": {"path": "/v1/messages?beta=true", "body": ANTHROPIC}})
    with terminal.start("serve"):
        until(terminal.health, "the server")
        done = terminal.run("warm", str(openai), str(anthropic), str(trace))
        recent = terminal.get("/stats").json()["recent"]
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert [line.split(": ")[1].split(" of them")[0] for line in done.stdout.splitlines()] == [
        "3 tokens, 0",
        "5 tokens, 0",
        "5 tokens, 0",
    ]
    assert sorted(request["dialect"] for request in recent) == ["anthropic_messages"] * 2 + ["openai_chat"]
    assert [request["completion_tokens"] for request in recent] == [0, 0, 0]


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("no JSON", (), 2, "expected the JSON of a request"),
        ("[1]", (), 2, "expected an object"),
        ({"messages": "wrong"}, (), 1, "messages"),
        ({"messages": [{"role": "developer", "content": "x"}]}, ("--anthropic",), 1, "role"),
    ],
)
def test_says_what_is_wrong_with_a_file(
    terminal: Terminal, content: Any, arguments: tuple[str, ...], code: int, said: str
) -> None:
    file = write(terminal, "a.json", content)
    with terminal.start("serve"):
        until(terminal.health, "the server")
        done = terminal.run("warm", *arguments, str(file))
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr
    assert str(file) in done.stderr


def test_says_what_to_do_without_a_server(terminal: Terminal) -> None:
    done = terminal.run("warm", str(write(terminal, "a.json", OPENAI)))
    assert done.returncode == 69
    assert "anyclaude serve" in done.stderr
    missing = terminal.run("warm", "missing.json")
    assert (missing.returncode, "missing.json" in missing.stderr) == (2, True)


def test_a_server_that_stays_silent_is_not_waited_for_longer_than_allowed(terminal: Terminal) -> None:
    file = write(terminal, "a.json", OPENAI)
    with socket.create_server(("127.0.0.1", terminal.port)):
        done = terminal.run("warm", "--timeout", "1", str(file))
    assert done.returncode == 69
    assert f"{file}: no answer from {terminal.url} within 1 seconds." in done.stderr


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"", 69, "hung up before it answered. Its log shows why."),
        (http("503 Service Unavailable", b'{"error": {"message": "The model does not fit."}}'), 1, "does not fit."),
    ],
    ids=["gone", "unhealthy"],
)
def test_a_server_that_is_gone_or_unhealthy_ends_it_at_once(
    terminal: Terminal, answer: bytes, code: int, said: str
) -> None:
    file = write(terminal, "a.json", OPENAI)
    with answering_once(answer) as url:
        done = terminal.run("warm", "--url", url, str(file))
    assert done.returncode == code
    assert f"Error: {file}: " in done.stderr
    assert done.stderr.endswith(f"{said}\n")


def test_the_setting_warms_at_the_start(terminal: Terminal) -> None:
    write(terminal, "a.json", OPENAI)
    write(terminal, "wrong.json", "no JSON")
    files = [str(terminal.cwd / name) for name in ("wrong.json", "a.json", "missing.json")]
    terminal.configure(executor="scripted", warm=files)
    with terminal.start("serve") as server:
        assert server.stderr is not None
        said = ""
        while "missing.json" not in said:  # the last of them
            line = server.stderr.readline()
            assert line, said
            said += line
        server.terminate()
        server.communicate(timeout=PATIENCE_SECONDS)
    assert "is warmed with" in said
    assert "a.json: 3 tokens" in said
    assert said.count("is not warmed with") == 2
