"""Accepts connections and serves each with Hypercorn's HTTP, with less to do for each request.

Hypercorn's own server (0.18) runs a task for each time that a connection is idle, sends the head and the body of an
answer by themselves, and keeps a connection that its client has closed until the keep-alive time is over. Here one
timer watches all idle connections, what is sent in one turn of the event loop leaves together, and a connection ends
with its client: scripts and health checks that open one for each request would else use up the process's files.
"""

import asyncio
from collections.abc import Callable
from socket import socket
from typing import Any

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask, WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.typing import ASGIFramework, TaskGroup

from service.server.malformed_requests import Http1

UNSENT_BYTES = 64 * 1024


async def serve_connections(app: ASGIFramework, config: Config, listener: socket, stop: asyncio.Event) -> None:
    """Until `stop`. Then nothing new is accepted, idle connections are closed, and the others have
    `config.graceful_timeout` seconds to end before they are cut."""
    context = WorkerContext(None)
    idle = IdleConnections(config.keep_alive_timeout)
    wrapped = ASGIWrapper(app)
    open_connections: set[asyncio.Task[None]] = set()

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (asyncio calls this in a task of its own)
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)
        await Connection(wrapped, config, context, reader, writer, idle)

    server = await asyncio.start_server(serve_connection, sock=listener, backlog=config.backlog)
    try:
        await stop.wait()
    finally:
        server.close()
        await context.terminated.set()
        idle.close()
        if open_connections:
            _, late = await asyncio.wait(open_connections, timeout=config.graceful_timeout)
            for connection in late:
                connection.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class IdleConnections:
    """Closes connections on which nothing was asked for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[Connection, float] = {}  # in the order in which they became idle
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def add(self, connection: "Connection") -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        self._until.pop(connection, None)
        self._until[connection] = until
        if self._closed:
            self._close_until(until)
        elif self._timer is None:
            self._timer = loop.call_at(until, self._close_late)

    def remove(self, connection: "Connection") -> None:
        self._until.pop(connection, None)

    def close(self) -> None:
        """Those that are idle now, and each that will be, at once."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._close_until(float("inf"))

    def _close_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        self._close_until(loop.time())
        for until in self._until.values():
            self._timer = loop.call_at(until, self._close_late)
            break

    def _close_until(self, time: float) -> None:
        for connection, until in list(self._until.items()):
            if until > time:
                break
            del self._until[connection]
            closing = asyncio.ensure_future(connection.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


class Connection(TCPServer):
    """One client's connection. To be awaited until it has ended."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        idle: IdleConnections,
    ) -> None:
        super().__init__(app, asyncio.get_running_loop(), config, context, {}, reader, writer)
        self.idle_task = _Idleness(self, idle)
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
        elif event.data:
            if not self._unsent:
                self.loop.call_soon(self._send)
            self._unsent.append(event.data)
            self._unsent_bytes += len(event.data)
            if self._unsent_bytes > UNSENT_BYTES:
                self._send()
            try:
                await self.writer.drain()  # waits where the client reads too slowly
            except (ConnectionError, RuntimeError):
                await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        self.protocol.protocol = Http1(self.protocol)  # for the one that Hypercorn made in `run`, and asked nobody
        await super()._read_data()

    async def close(self) -> None:
        """Of an idle connection: what was sent last has left by now."""
        await self._initiate_server_close()

    async def _close(self) -> None:
        self._send()
        await super()._close()

    def _send(self) -> None:
        if self._unsent:
            unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
            self.writer.writelines(unsent)


class _Idleness(AsyncioSingleTask):
    """What Hypercorn takes for the task that waits for the keep-alive time to be over."""

    def __init__(self, connection: Connection, idle: IdleConnections) -> None:
        super().__init__()
        self._connection = connection
        self._idle = idle

    async def restart(self, task_group: TaskGroup, action: Callable[..., Any]) -> None:
        self._idle.add(self._connection)

    async def stop(self) -> None:
        self._idle.remove(self._connection)
