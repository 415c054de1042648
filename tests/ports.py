"""Loopback ports for servers that a test starts later.

If the system picks such a port, it may pick it again for another test's server before this one starts. These ports lie
below the ranges from which Linux and macOS pick, and each worker of pytest-xdist uses a part of its own.
"""

import itertools
import os
import random
import socket
from contextlib import ExitStack

FIRST_PORT = 16_384
PORTS_OF_A_WORKER = 2_048
WORKERS = 8

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_start = random.randrange(PORTS_OF_A_WORKER)
_offsets = itertools.cycle([*range(_start, PORTS_OF_A_WORKER), *range(_start)])


def free_port() -> int:
    return free_ports(1)


def free_ports(count: int) -> int:
    """Returns the first of `count` ports in a row that nobody uses now. Later calls return others."""
    while True:
        first = FIRST_PORT + _worker * PORTS_OF_A_WORKER + next(_offsets)
        for _ in range(1, count):
            next(_offsets)
        with ExitStack() as sockets:
            try:
                for port in range(first, first + count):
                    sockets.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
