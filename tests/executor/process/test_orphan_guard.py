"""A guarded process ends with the process that started its guard, and only with it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil
import pytest

from service.executor.process.child import Child
from service.executor.process.engine_process import EngineProcess
from service.executor.process.orphan_guard import SCRIPT
from service.own_python import own_python
from tests.executor.process.engines import spec
from tests.patience import PATIENCE_SECONDS, until

SERVER = """
import subprocess
from service.executor.process.orphan_guard import OrphanGuard

guarded = subprocess.Popen(["/bin/sleep", "600"], process_group=0)
guard = OrphanGuard(guarded.pid)
print(guarded.pid, flush=True)
input()
guard.stand_down()
print("stood down", flush=True)
input()
"""


def is_there(process: psutil.Process) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def guards(server: psutil.Process) -> list[psutil.Process]:
    return [each for each in server.children() if is_there(each) and SCRIPT in each.cmdline()]


@contextmanager
def guarding() -> Iterator[tuple[subprocess.Popen[str], psutil.Process, psutil.Process]]:
    """Yields a server, its guarded process, and the guard."""
    command = own_python("-c", SERVER)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0) as server:
        guarded = psutil.Process(int(read(server)))
        (guard,) = until(lambda: guards(psutil.Process(server.pid)), "the guard to be a shell")
        try:
            yield server, guarded, guard
        finally:
            server.kill()
            if is_there(guarded):
                guarded.kill()


def read(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline()


@pytest.mark.parametrize("stuck", [False, True], ids=["running", "stopped"])
def test_a_guarded_process_ends_with_a_server_that_is_killed(stuck: bool) -> None:
    with guarding() as (server, guarded, guard):
        if stuck:
            guarded.suspend()
        server.kill()
        until(lambda: not is_there(guarded), "the guarded process to end")
        until(lambda: not is_there(guard), "the guard to end")


def test_a_guard_that_stood_down_kills_nothing() -> None:
    with guarding() as (server, guarded, guard):
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
        assert read(server) == "stood down\n"
        assert not is_there(guard)
        server.kill()
        server.wait(PATIENCE_SECONDS)
        assert is_there(guarded)


def test_a_signal_for_the_servers_group_leaves_the_guard() -> None:
    with guarding() as (server, guarded, _):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(PATIENCE_SECONDS)
        until(lambda: not is_there(guarded), "the guarded process to end")


async def test_an_engine_has_a_guard_for_as_long_as_it_runs() -> None:
    own = psutil.Process()
    before = guards(own)
    engine = EngineProcess(spec("scripted"), spawn=partial(Child, is_guarded=True))
    try:
        await engine.load()
        await engine.settled.wait()
        assert len(guards(own)) == len(before) + 1
    finally:
        await engine.aclose()
    assert guards(own) == before
