"""Loopback ports for servers that start later.

If the system picks such a port, it may pick it again before the server starts, also for an outgoing connection. These
ports lie below the ranges from which Linux and macOS pick.
"""

import itertools
import random
import socket
from contextlib import ExitStack


class PortRange:
    def __init__(self, first: int, count: int) -> None:
        start = first + random.randrange(count)  # noqa: S311
        self._ports = itertools.cycle([*range(start, first + count), *range(first, start)])

    def free(self, count: int = 1) -> int:
        """Returns the first of `count` ports in a row that nobody uses now. Later calls return others."""
        while True:
            first, *_ = itertools.islice(self._ports, count)
            with ExitStack() as sockets:
                try:
                    for port in range(first, first + count):
                        sockets.enter_context(socket.create_server(("127.0.0.1", port)))
                except OSError:
                    continue
                return first


free_port = PortRange(12_288, 4_096).free
