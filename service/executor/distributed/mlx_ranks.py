import logging
import os
import secrets
import socket
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from service.executor.distributed.ranks import RankLost
from service.executor.distributed.route import find_route
from service.executor.distributed.wire import SECRET_BYTES, OnLoss, Wire, connect, listen

log = logging.getLogger(__name__)


class MlxRanks:
    def __init__(self, group: Any, wire: Wire) -> None:
        self.group = group
        self.rank: int = group.rank()
        self.size: int = group.size()
        self.tell = wire.tell
        self.hear = wire.hear
        self.end = wire.end
        self.fail = wire.fail

    def largest(self, number: int) -> int:
        try:
            return max(_gathered(self.group, number))
        except RuntimeError as exc:
            raise RankLost(str(exc)) from exc


def meet() -> None:
    """Waits for all ranks. Raises RuntimeError."""
    # Called before anything slow: the ring backend gives up on its neighbour after about 15 seconds.
    mx.distributed.init(strict=True)


def join_ranks(on_loss: OnLoss, environ: Mapping[str, str] = os.environ) -> MlxRanks:
    """Call `meet` first. Raises `NotLaunched`, RuntimeError, or OSError if the ranks cannot connect."""
    group: Any = mx.distributed.init(strict=True)
    route = find_route(environ, group.rank(), group.size())
    listener = listen(route)
    ports = _gathered(group, _port(listener))
    wire = connect(route, listener, ports[route.above], _shared_secret(group), on_loss)
    log.info("Rank %d of %d (process %d) has joined the others", group.rank(), group.size(), os.getpid())
    return MlxRanks(group, wire)


def _port(listener: socket.socket | None) -> int:
    return int(listener.getsockname()[1]) if listener is not None else 0


def _gathered(group: Any, number: int) -> list[int]:
    # On the CPU stream, where all backends for several machines exchange.
    numbers: Any = mx.distributed.all_gather(mx.array([number], dtype=mx.int64), group=group, stream=mx.cpu)
    return [int(n) for n in numbers.tolist()]


def _shared_secret(group: Any) -> bytes:
    # The other ranks add zeros to rank 0's bytes.
    own = secrets.token_bytes(SECRET_BYTES) if group.rank() == 0 else bytes(SECRET_BYTES)
    total: Any = mx.distributed.all_sum(mx.array(list(own), dtype=mx.int32), group=group, stream=mx.cpu)
    return bytes(total.tolist())
