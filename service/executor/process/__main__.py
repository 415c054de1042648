"""Runs an engine process: `python -P -m service.executor.process DESCRIPTOR SERVER`, the server's process id."""

import asyncio
import ctypes
import faulthandler
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from service.executor.process.engine_host import EngineHost, exit_now
from service.executor.process.orphan_guard import kernel_ends_orphans

PR_SET_PDEATHSIG = 1
MORE_LIKELY_KILLED = "500"


def main(descriptor: int, server: int) -> None:
    end_with(server)
    offer_to_the_oom_killer()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the server asks for the stacks before it kills a silent process
    # Service managers and terminals signal all processes of a group at once. The server ends its engines itself, after
    # their open answers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The server's stack is deeper: values that it could encode must be decodable here.
    sys.setrecursionlimit(2 * sys.getrecursionlimit())
    asyncio.run(serve(socket.socket(fileno=descriptor)))


async def serve(connection: socket.socket) -> None:
    connection.set_inheritable(False)
    loop = asyncio.get_running_loop()
    await loop.create_connection(EngineHost, sock=connection)
    await loop.create_future()  # the host ends the process


def end_with(server: int) -> None:
    # The socket ends with the server too, but only a thread that gets the interpreter's lock notices.
    if not kernel_ends_orphans():
        return  # the server has started a guard
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        exit_now(0)  # it died before the call


def offer_to_the_oom_killer() -> None:
    # When memory runs out, Linux kills an engine before the server, whose clients would lose their connections.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(MORE_LIKELY_KILLED)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
