"""`anyclaude cache list|export|import` and `anyclaude serve --record|--replay`, as processes of their own."""

import asyncio
import json
import os
import re
from pathlib import Path

import httpx
import pytest

from cache_backends import open_backend
from service.response_cache.record import AnswerRecord, encode_record
from tests.cli.terminal import Terminal
from tests.patience import PATIENCE_SECONDS, until
from tests.response_cache.answers import text

KEY = "a" * 64


def fill(url: str, *keys: str) -> None:
    async def run() -> None:
        store = open_backend(url)
        for key in keys:
            await store.set(key, encode_record(AnswerRecord(key, 1_700_000_000.0, text("the answer"))))
        await store.aclose()

    asyncio.run(run())


def ask(terminal: Terminal, content: str) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": content}]}
    return terminal.post("/v1/chat/completions", body)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("config", "--config"), 78),
        (("serve", "--replay"), 78),
        (("serve", "--record"), 78),
        (("cache", "import", "--cache", "disk://~/store"), 1),
        (("cache", "explain", "pipe"), 2),
        (("warm",), 2),
    ],
)
def test_a_pipe_is_refused_and_not_waited_for(terminal: Terminal, arguments: tuple[str, ...], code: int) -> None:
    pipe = terminal.folder / "pipe"
    os.mkfifo(pipe)
    (terminal.cwd / "pipe").symlink_to(pipe)
    terminal.patience_seconds = 30
    done = terminal.run(*arguments, str(pipe))
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert "pipe" in done.stderr.splitlines()[-1]
    assert "expected a regular file, found a pipe" in done.stderr


def test_list_shows_what_is_stored_and_no_content(terminal: Terminal, tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/store"
    fill(url, KEY)
    shown = terminal.run("cache", "list", "--cache", url)
    assert re.search(rf"^{KEY}  2023-11-14 22:13:20Z +\d+  3 \+ 1$", shown.stdout, re.MULTILINE)
    assert "the answer" not in shown.stdout
    (line,) = terminal.run("cache", "list", "--json", "--cache", url).stdout.splitlines()
    assert json.loads(line)["key"] == KEY


def test_answers_move_by_a_file(terminal: Terminal, tmp_path: Path) -> None:
    source, target, file = f"disk://{tmp_path}/a", f"disk://{tmp_path}/b", str(tmp_path / "file")
    fill(source, KEY, "b" * 64)
    assert terminal.run("cache", "export", file, "--cache", source).stdout == f"2 answers in {file}.\n"
    assert terminal.run("cache", "import", file, "--cache", target).stdout == "2 answers stored.\n"
    assert "the answer" in terminal.run("cache", "get", KEY, "--cache", target).stdout


def test_an_import_that_one_of_two_stores_missed_is_said(terminal: Terminal, tmp_path: Path) -> None:
    source, target, file = f"disk://{tmp_path}/a", f"disk://{tmp_path}/b", str(tmp_path / "file")
    fill(source, KEY)
    terminal.run("cache", "export", file, "--cache", source)
    done = terminal.run("cache", "import", file, "--cache", target, "--cache", f"disk://{file}/away")
    assert done.stdout == "1 answer stored.\n"
    assert "1 write failed in one of the stores." in done.stderr


def test_a_session_is_recorded_and_replayed(terminal: Terminal) -> None:
    with terminal.start("serve", "--record", "session.jsonl"):
        until(terminal.health, "the server")
        assert ask(terminal, "hello there").json()["choices"][0]["message"]["content"] == "hello there"
    terminal.configure(executor="mlx", model="/no/such/model", replay=str(terminal.cwd / "session.jsonl"))
    with terminal.start("serve") as server:
        until(terminal.health, "the server")
        assert ask(terminal, "hello there").json()["choices"][0]["message"]["content"] == "hello there"
        assert ask(terminal, "something else").json()["error"]["code"] == "not_recorded"
        server.terminate()
        out, _ = server.communicate(timeout=PATIENCE_SECONDS)
    assert "Serving 1 answer of scripted, recorded in " in out


WRONG = [
    (["--replay", "nothing"], "nothing cannot be read: No such file"),
    (["--replay", "other.json"], "other.json, line 1: expected the head of a file of answers"),
    (["--record", "a", "--replay", "b"], "expected one of --record and --replay, found both"),
    (["--record", "no/such/folder/file"], "no/such/folder/file cannot be written: No such file"),
    (["--record", "other.json"], "other.json, line 1: expected the head of a file of answers"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_file_that_cannot_be_used_is_said(terminal: Terminal, arguments: list[str], message: str) -> None:
    (terminal.cwd / "other.json").write_text("{}")
    done = terminal.run("serve", *arguments)
    assert done.returncode == 78
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_import_that_cannot_be_is_said(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    done = terminal.run("cache", "import", str(tmp_path / "file"), "--cache", f"disk://{tmp_path}/store")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "line 1: expected the head of a file of answers" in done.stderr
