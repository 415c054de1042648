"""Runs an app under Hypercorn until it is told to stop, and then lets running answers end properly."""

import asyncio
import errno
import logging
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, cast

from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette

from service.server.connections import serve_connections
from service.server.unread_body import UnreadBody
from service.settings import Settings

logger = logging.getLogger("anyclaude.server")

BACKLOG = 1024  # connections that the kernel keeps until they are accepted; of more, it lets each wait for a second
MOST_FILES = 10_240  # macOS' OPEN_MAX
ACCEPT_FAILURE_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 3.0  # for the last frames to leave, after running answers were failed


class CannotListen(OSError):
    """Nobody can listen there. The message names the address, and says what to do."""


class AddressInUse(CannotListen):
    """Somebody else listens there already."""


def bind(settings: Settings) -> socket.socket:
    """A listening socket, so that a port in use shows before a model is loaded. Port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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
    app: Starlette, settings: Settings, listener: socket.socket | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serves until SIGTERM or SIGINT, or, where it is given, until `stop` is set and signals are left alone.

    Then: no new connections; running answers may end within `shutdown_grace_seconds`; what is left is told
    `ShuttingDown` in its protocol. A second signal ends at once.
    """
    listening, stopping = listener or bind(settings), stop or asyncio.Event()
    with _signals(stopping) if stop is None else nullcontext(), _loop_errors():
        async with app.router.lifespan_context(app):
            ending = asyncio.ensure_future(_end_answers(app, stopping, settings.shutdown_grace_seconds))
            try:
                framework = cast(ASGIFramework, UnreadBody(app))
                await serve_connections(framework, _config(settings), listening, stopping)
            finally:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)


@contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            # Nothing is unwound: what blocks a thread, as loading a model does, would hold up the end.
            logger.warning("stopped at once by a second signal")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def allow_many_files() -> None:
    """Takes as many file descriptors as the system grants: each connection is one, and 1024 or 256 are the usual start.
    Without any left, asyncio in Python 3.11 keeps itself busy with trying to accept the next."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says "unlimited", and takes less
        resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES if most == resource.RLIM_INFINITY else most, most))


class _LoopErrors:
    """What asyncio reports besides what is caught, without two kinds that say nothing or too much.

    Connections that are still open when the time is over are cancelled, which Python 3.11 reports as an error, with a
    traceback for each. And a connection that cannot be accepted is reported for each place of the backlog.
    """

    def __init__(self) -> None:
        self._accept_failure_said = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, asyncio.CancelledError):
            return
        if isinstance(error, OSError) and "accept" in context.get("message", ""):
            if loop.time() - self._accept_failure_said > ACCEPT_FAILURE_SECONDS:
                self._accept_failure_said = loop.time()
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


async def _end_answers(app: Starlette, stop: asyncio.Event, grace_seconds: float) -> None:
    await stop.wait()
    app.state.context.stopping.set()
    executor = app.state.context.executor
    loading = executor.status().state == "loading"
    awaited = (
        "the model's loading cannot be broken off" if loading else f"answers have {grace_seconds:g} seconds to end"
    )
    logger.info("stopping: %s; a second signal ends it at once", awaited)
    await asyncio.sleep(grace_seconds)
    await executor.aclose()


def _config(settings: Settings) -> Config:
    config = Config()
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("anyclaude.http")
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = sys.maxsize
    config.graceful_timeout = settings.shutdown_grace_seconds + CLOSE_SECONDS
    return config
