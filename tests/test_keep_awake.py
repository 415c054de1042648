"""A program in the place of macOS's `caffeinate` writes down how it was called."""

import asyncio
import os
from pathlib import Path

import pytest

from service.keep_awake import KeepAwake
from tests.executor.engines import until


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "caffeinate"
    file.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/calls.new\nmv {tmp_path}/calls.new {tmp_path}/calls\nexec sleep 60\n'
    )
    file.chmod(0o755)
    return file


async def test_the_system_stays_awake_while_something_runs(program: Path) -> None:
    busy = [False]
    awake = KeepAwake(program)
    following = asyncio.create_task(awake.follow(lambda: busy[0], look_seconds=0.01))
    calls = program.with_name("calls")
    assert not awake.holds
    busy[0] = True
    await until(calls.exists)
    assert calls.read_text() == f"-i -w {os.getpid()}\n"
    assert awake.holds
    busy[0] = False
    await until(lambda: not awake.holds)
    busy[0] = True
    await until(lambda: awake.holds)
    following.cancel()
    await asyncio.wait([following])
    assert not awake.holds


def test_one_program_is_enough(program: Path) -> None:
    awake = KeepAwake(program)
    awake.hold()
    awake.hold()
    awake.release()
    assert not awake.holds


def test_nothing_happens_where_there_is_no_such_program(tmp_path: Path) -> None:
    awake = KeepAwake(tmp_path / "missing")
    awake.hold()
    assert not awake.possible
    assert not awake.holds
