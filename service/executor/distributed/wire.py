"""A frame is its length (4 bytes, little endian) and its bytes. Downwards it is a call, or empty at the end; upwards it
is the reason why a rank gives up."""

import contextlib
import hmac
import logging
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from service.executor.distributed.ranks import RankLost
from service.executor.distributed.route import Route

log = logging.getLogger(__name__)

# Once all ranks are up, they may take this long to connect.
CONNECT_SECONDS = 60.0

# A machine that vanishes closes no connection. After this long without a sign it is probed this many times.
KEEP_ALIVE_SECONDS = 10
KEEP_ALIVE_PROBES = 3

# A failure waits this long for the loss of a rank that may have caused it.
BETTER_REASON_SECONDS = 1.0
SECRET_BYTES = 32
_LENGTH = struct.Struct("<I")

OnLoss = Callable[[str], None]


# Calls do not use MLX's collectives: a waiting rank would keep a core busy, and a dead rank would show only at the next
# call.
class Wire:
    """One rank's connections. Calls `on_loss` once, on its own thread, if a rank is lost."""

    def __init__(self, above: socket.socket | None, below: dict[int, socket.socket], on_loss: OnLoss) -> None:
        self._above = above
        self._below = below
        self._on_loss = on_loss
        self._inbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ended = False
        self._lost = ""
        for rank, connection in below.items():
            _start(partial(self._watch, rank, connection), f"wire to rank {rank}")
        if above is not None:
            _start(partial(self._listen, above), "wire to rank 0")

    def tell(self, message: bytes) -> None:
        """Raises `RankLost`."""
        try:
            for connection in self._below.values():
                _send(connection, message)
        except OSError as exc:
            self.fail(f"a rank cannot be reached: {exc.strerror}")
        self._check()

    def hear(self) -> bytes | None:
        """Returns None at the orderly end. Raises `RankLost`."""
        message = self._inbox.get()
        if message is None:
            self._check()
        return message

    def end(self) -> None:
        with self._lock:
            self._ended = True
        self._over.set()
        with contextlib.suppress(OSError):
            for connection in self._below.values():
                _send(connection, b"")

    def fail(self, reason: str) -> str:
        # If MLX failed because a rank died, that rank's connection ends at about the same time and names it.
        if not self._over.wait(BETTER_REASON_SECONDS):
            self._lose(reason)
        return self._lost or reason

    def _check(self) -> None:
        if self._lost:
            raise RankLost(self._lost)

    def _listen(self, above: socket.socket) -> None:
        with above:
            try:
                while message := _receive(above):
                    for connection in self._below.values():
                        _send(connection, message)
                    self._inbox.put(message)
            except OSError as exc:
                message = None
                log.debug("The connection to the rank above broke: %s", exc)
            if message is None:
                self._lose("rank 0, or a rank on the way to it, has ended without a reason")
            else:
                self.end()
                self._inbox.put(None)

    def _watch(self, rank: int, connection: socket.socket) -> None:
        with connection:
            try:
                reason = _receive(connection)
            except OSError as exc:
                log.debug("The connection to rank %d broke: %s", rank, exc)
                reason = None
            self._lose(reason.decode(errors="replace") if reason else f"rank {rank} has ended")

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._lost or self._ended:
                return
            self._lost = reason
        if self._above is not None:
            with contextlib.suppress(OSError):
                _send(self._above, reason.encode())
        for connection in (self._above, *self._below.values()):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._inbox.put(None)
        self._on_loss(reason)
        self._over.set()  # last: whoever waits for a better reason finds it reported


def listen(route: Route) -> socket.socket | None:
    return socket.create_server((route.listen, 0), backlog=len(route.below)) if route.below else None


def connect(route: Route, listener: socket.socket | None, port_above: int, secret: bytes, on_loss: OnLoss) -> Wire:
    """All ranks must listen already. `secret` keeps out other processes. Raises OSError."""
    above = None
    if route.upstream:
        above = _prepared(socket.create_connection((route.upstream, port_above), CONNECT_SECONDS))
        above.sendall(secret + _LENGTH.pack(route.rank))
    below: dict[int, socket.socket] = {}
    if listener is not None:
        with listener:
            listener.settimeout(CONNECT_SECONDS)
            while len(below) < len(route.below):
                connection = _prepared(listener.accept()[0])
                rank = _greeted(connection, secret)
                if rank in route.below:
                    below[rank] = connection
                else:
                    connection.close()
    return Wire(above, below, on_loss)


def _start(run: Callable[[], None], name: str) -> None:
    threading.Thread(target=run, name=name, daemon=True).start()


def _greeted(connection: socket.socket, secret: bytes) -> int | None:
    connection.settimeout(CONNECT_SECONDS)
    with contextlib.suppress(OSError):
        greeting = _exactly(connection, SECRET_BYTES + _LENGTH.size)
        if greeting is not None and hmac.compare_digest(greeting[:SECRET_BYTES], secret):
            connection.settimeout(None)
            return int(_LENGTH.unpack(greeting[SECRET_BYTES:])[0])
    log.warning("Refused a connection that is not from a rank")
    return None


def _prepared(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)  # Linux, macOS
    unanswered = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux; in ms, for data that was sent
    options = (
        (idle, KEEP_ALIVE_SECONDS),
        (socket.TCP_KEEPINTVL, KEEP_ALIVE_SECONDS),
        (socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES),
        (unanswered, (1 + KEEP_ALIVE_PROBES) * KEEP_ALIVE_SECONDS * 1000),
    )
    for option, value in options:
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(message)) + message)


def _receive(connection: socket.socket) -> bytes | None:
    length = _exactly(connection, _LENGTH.size)
    return None if length is None else _exactly(connection, _LENGTH.unpack(length)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
