"""A program in the place of macOS's `caffeinate` writes down how it was called."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from service.app import create_app
from service.executor.scripted import ScriptedExecutor
from service.keep_awake import KeepAwake
from tests.cli.terminal import Terminal
from tests.executor.engines import until
from tests.http.test_generation import MESSAGES, Gated, raw
from tests.patience import PATIENCE_SECONDS
from tests.serving import client_of, running, settings


def install_caffeinate(folder: Path) -> Path:
    """Returns the file with the arguments of the last call."""
    program, calls = folder / "caffeinate", folder / "calls"
    program.write_text(f'#!/bin/sh\necho "$@" >{calls}.new\nmv {calls}.new {calls}\nexec sleep 60\n')
    program.chmod(0o755)
    return calls


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return install_caffeinate(tmp_path)


async def test_the_system_stays_awake_while_something_runs(calls: Path) -> None:
    busy = [False]
    awake = KeepAwake()
    following = asyncio.create_task(awake.follow(lambda: busy[0], look_seconds=0.01))
    assert not awake.holds
    busy[0] = True
    await until(calls.exists)
    assert calls.read_text() == f"-i -w {os.getpid()}\n"  # noqa: ASYNC240 - it takes microseconds
    assert awake.holds
    busy[0] = False
    await until(lambda: not awake.holds)
    busy[0] = True
    await until(lambda: awake.holds)
    following.cancel()
    await asyncio.wait([following])
    assert not awake.holds


@pytest.mark.usefixtures("calls")
def test_one_program_is_enough() -> None:
    awake = KeepAwake()
    awake.hold()
    awake.hold()
    awake.release()
    assert not awake.holds


def test_nothing_happens_where_there_is_no_such_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    awake = KeepAwake()
    awake.hold()
    assert not awake.holds


def is_kept_awake(pid: int) -> bool:
    commands = [child.cmdline() for child in psutil.Process(pid).children()]
    # The program in its place soon becomes `sleep`.
    return any(command[-1:] == ["60"] or command[-2:] == ["-w", str(pid)] for command in commands)


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("keep_awake", [True, False])
async def test_a_server_keeps_the_system_awake_while_it_answers(keep_awake: bool, tmp_path: Path) -> None:
    script, configured = Gated(), settings(tmp_path, keep_awake=keep_awake)
    app = create_app(configured, executor=ScriptedExecutor(script))
    answering = asyncio.create_task(raw(MESSAGES, stream=True).run(app))
    await script.started.wait()
    async with running(app, configured) as url, client_of(url) as client:
        assert (await client.get("/health")).status_code == 200
        await until(lambda: is_kept_awake(os.getpid()) == keep_awake)  # a program that starts has no arguments yet
        script.gate.set()
        await answering
    assert not is_kept_awake(os.getpid())


@pytest.mark.process
@pytest.mark.parametrize("keep_awake", [True, False])
def test_the_launcher_keeps_the_system_awake_while_an_agent_runs(keep_awake: bool, tmp_path: Path) -> None:
    user = Terminal(tmp_path)
    user.install_claude()
    install_caffeinate(user.bin)
    user.configure(executor="scripted", keepAwake=keep_awake)
    with user.start(FAKE_WAITS="1") as launcher:
        user.claude()
        assert is_kept_awake(launcher.pid) == keep_awake
        user.let_go()
        assert launcher.wait(timeout=PATIENCE_SECONDS) == 0
