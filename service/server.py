"""Runs an app under Hypercorn until it is told to stop, and then lets running answers end properly."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette

from service.settings import Settings
from service.unread_body import UnreadBody

logger = logging.getLogger("anyclaude.server")

KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 3.0  # for the last frames to leave, after running answers were failed


class AddressInUse(OSError):
    """Somebody else listens there. The message names the address."""


def bind(settings: Settings) -> socket.socket:
    """A listening socket, so that a port in use shows before a model is loaded. Port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        raise AddressInUse(
            error.errno,
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another with --port, "
            "or stop what runs there.",
        ) from error
    listener.listen(1024)
    listener.setblocking(False)
    return listener


async def serve(
    app: Starlette, settings: Settings, listener: socket.socket | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serves until SIGTERM or SIGINT, or, where it is given, until `stop` is set and signals are left alone.

    Then: no new connections; running answers may end within `shutdown_grace_seconds`; what is left is told
    `ShuttingDown` in its protocol. A second signal ends at once.
    """
    config = _config(settings, listener or bind(settings))
    stopping = stop or asyncio.Event()
    framework = cast(ASGIFramework, UnreadBody(app))
    serving = asyncio.ensure_future(hypercorn_serve(framework, config, shutdown_trigger=stopping.wait))
    ending = asyncio.ensure_future(_end_answers(app, stopping, settings.shutdown_grace_seconds))
    try:
        with _signals(stopping, serving) if stop is None else nullcontext():
            await serving
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    finally:
        serving.cancel()
        ending.cancel()
        await asyncio.gather(serving, ending, return_exceptions=True)


@contextmanager
def _signals(stopping: asyncio.Event, serving: asyncio.Future[None]) -> Iterator[None]:
    def on_signal() -> None:
        if stopping.is_set():
            serving.cancel()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _end_answers(app: Starlette, stop: asyncio.Event, grace_seconds: float) -> None:
    await stop.wait()
    app.state.context.stopping.set()
    logger.info("stopping: running answers have %g seconds to end", grace_seconds)
    await asyncio.sleep(grace_seconds)
    await app.state.context.executor.aclose()


def _config(settings: Settings, listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("anyclaude.http")
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = sys.maxsize
    config.graceful_timeout = settings.shutdown_grace_seconds + CLOSE_SECONDS
    return config
