import asyncio
import errno
import logging
import math
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from service.app import Service
from service.config.address import base_url
from service.server.connections import BACKLOG, ConnectionLimits, serve_connections
from service.server.unread_body import UnreadBody
from service.settings import Settings
from service.telemetry.readiness import announce_ready

logger = logging.getLogger("anyclaude.server")

# OPEN_MAX of macOS, which also bounds the limit "unlimited".
MOST_FILES = 10_240
# Descriptors for everything but connections.
OTHER_FILES = 64
ACCEPT_FAILURE_SECONDS = 10.0
# Time to send the last frames after answers have failed.
CLOSE_SECONDS = 3.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotListen(OSError):
    """The message names the address and the next step."""


class AddressInUse(CannotListen): ...


def bind(settings: Settings) -> socket.socket:
    """Port 0 takes a free port. Call it before loading, so that a port in use is reported at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY for each connection. Without, the first token may wait 40 ms for
    # the acknowledgement of the head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        in_use = error.errno == errno.EADDRINUSE
        advice = "Choose another with --port, or stop what runs there." if in_use else "Correct --host or --port."
        what = f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. {advice}"
        raise (AddressInUse if in_use else CannotListen)(error.errno, what) from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


async def serve(
    app: Service, settings: Settings, listener: socket.socket | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serves until `stop` is set; without it, until SIGINT, SIGTERM or SIGHUP. A second signal exits at once. Answers
    that run `shutdown_grace_seconds` longer fail with `ShuttingDown`."""
    listening, stopping = listener or bind(settings), stop or asyncio.Event()
    with _signals(stopping) if stop is None else nullcontext(), _loop_errors():
        async with app.router.lifespan_context(app):
            tasks = [asyncio.ensure_future(announce_ready(app.status, _root(listening), since=time.monotonic()))]
            tasks.append(asyncio.ensure_future(_stop(app, stopping)))
            try:
                await serve_connections(UnreadBody(app), _limits(settings), listening, stopping)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _stop(app: Service, stopping: asyncio.Event) -> None:
    await stopping.wait()
    await app.stop()


def _root(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return base_url(host, port).removesuffix("/v1")


@contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            # Nothing is unwound: a busy thread, such as one that loads a model, would delay the exit.
            logger.warning("stopped at once by a second signal")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


def allow_many_files() -> None:
    """Each connection needs a file descriptor, and the usual limit is 256 or 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES if most == resource.RLIM_INFINITY else most, most))


class _LoopErrors:
    """Drops asyncio's reports of connections cut at shutdown (Python 3.11), and repeated ones of failed accepts."""

    def __init__(self) -> None:
        self._accept_failure_logged = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, asyncio.CancelledError):
            return
        if isinstance(error, OSError) and "accept" in context.get("message", ""):
            if loop.time() - self._accept_failure_logged > ACCEPT_FAILURE_SECONDS:
                self._accept_failure_logged = loop.time()
                logger.error("connections cannot be accepted now: %s", error.strerror)
            return
        loop.default_exception_handler(context)


@contextmanager
def _loop_errors() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(_LoopErrors())
    try:
        yield
    finally:
        loop.set_exception_handler(before)


def _limits(settings: Settings) -> ConnectionLimits:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = MOST_FILES
    return ConnectionLimits(
        grace_seconds=settings.shutdown_grace_seconds + CLOSE_SECONDS,
        connections=max(files - OTHER_FILES, files // 2),
        http2=settings.http2,
    )
