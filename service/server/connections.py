import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Sized
from socket import socket
from typing import Any, cast

import msgspec
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask, WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import ASGIFramework, TaskGroup
from starlette.types import ASGIApp

from service.deadlines import TimedQueue
from service.server.http1 import Http1

# Connections that the kernel queues. Each one beyond waits for a second.
BACKLOG = 1024
UNSENT_BYTES = 64 * 1024

# A connection that was cancelled gets its last bytes out in this time, or its client does not read.
LAST_SECONDS = 1.0


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`head_seconds` count from a request head's first byte, `grace_seconds` from the stop. Beyond `connections`, the
    oldest idle ones are closed."""

    idle_seconds: float = 75.0
    head_seconds: float = 10.0
    grace_seconds: float = 10.0
    connections: int = sys.maxsize
    http2: bool = False


async def serve_connections(app: ASGIApp, limits: ConnectionLimits, listener: socket, stop: asyncio.Event) -> None:
    """Serves until `stop`. Idle connections are then closed at once, the others after the grace period."""
    config, context = _config(limits), WorkerContext(None)
    wrapped = ASGIWrapper(cast(ASGIFramework, app))
    open_connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    idle = IdleConnections(limits, open_connections)

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (asyncio calls this in a task of its own)
        open_connections[task] = writer
        task.add_done_callback(open_connections.pop)
        if len(open_connections) > limits.connections:
            idle.close_oldest()
        await Connection(wrapped, config, context, reader, writer, idle)

    server = await asyncio.start_server(serve_connection, sock=listener, backlog=config.backlog)
    try:
        await stop.wait()
    finally:
        server.close()
        await context.terminated.set()
        idle.close()
        if open_connections:
            _, late = await asyncio.wait(open_connections, timeout=limits.grace_seconds)
            for connection in late:
                connection.cancel()
            if late:
                _, unread = await asyncio.wait(late, timeout=LAST_SECONDS)
                for connection in unread:
                    open_connections[connection].transport.abort()
                await asyncio.gather(*late, return_exceptions=True)


class IdleConnections:
    """`opened` holds the idle connections and the busy ones."""

    def __init__(self, limits: ConnectionLimits, opened: Sized = ()) -> None:
        self._opened = opened
        self._idle: TimedQueue[Connection] = TimedQueue(limits.idle_seconds, self._close)
        self._heads: TimedQueue[Connection] = TimedQueue(limits.head_seconds, self._refuse)
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def busy(self) -> int:
        return len(self._opened) - len(self._idle)

    def add(self, connection: "Connection") -> None:
        if self._closed:
            self._close(connection)
        else:
            self._idle.add(connection)

    def head_begins(self, connection: "Connection") -> None:
        """Repeated calls for one head do not extend its deadline."""
        if connection not in self._heads:
            self._heads.add(connection)

    def remove(self, connection: "Connection") -> None:
        self._idle.discard(connection)
        self._heads.discard(connection)

    def close_oldest(self) -> None:
        self._idle.expire_oldest()

    def close(self) -> None:
        """Closes the idle connections, and later each one that becomes idle."""
        self._closed = True
        self._idle.expire_all()

    def _close(self, connection: "Connection") -> None:
        self._heads.discard(connection)
        self._end(connection.close())

    def _refuse(self, connection: "Connection") -> None:
        self._idle.discard(connection)
        self._end(connection.refuse_head())

    def _end(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class Connection(TCPServer):
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
        self._idle = idle
        self._http1: Http1 | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            if event.idle:
                self._idle.add(self)
            else:
                self._idle.remove(self)
        elif not isinstance(event, RawData):
            await super().protocol_send(event)
        elif event.data:
            if not self._unsent:
                self.loop.call_soon(self._send)
            self._unsent.append(event.data)
            self._unsent_bytes += len(event.data)
            if self._unsent_bytes > UNSENT_BYTES:
                self._send()
            if self.writer.transport.get_write_buffer_size():
                await self._wait_for_client()
        elif self._idle.busy <= 1:
            # The end of an HTTP/1.1 message of known length has no bytes. The client need not wait for the loop's next
            # turn. Answers of several connections leave together: their clients then ask together, which saves turns.
            self._send()

    async def _wait_for_client(self) -> None:
        """Returns when the client has read most of what was sent."""
        try:
            await self.writer.drain()
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        # `run` has just made Hypercorn's own HTTP/1.1, which has seen no byte yet.
        self._http1 = Http1(self.protocol, on_partial_head=lambda: self._idle.head_begins(self))
        self.protocol.protocol = self._http1
        await super()._read_data()

    async def close(self) -> None:
        """Call it only while the connection is idle."""
        await self._initiate_server_close()

    async def refuse_head(self) -> None:
        if self._http1 is not None:
            await self._http1.refuse_late_head()

    async def _close(self) -> None:
        self._send()
        await super()._close()

    def _send(self) -> None:
        if self._unsent:
            unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
            self.writer.writelines(unsent)


class _Idleness(AsyncioSingleTask):
    def __init__(self, connection: Connection, idle: IdleConnections) -> None:
        super().__init__()
        self._connection = connection
        self._idle = idle

    async def restart(self, task_group: TaskGroup, action: Callable[..., Any]) -> None:
        self._idle.add(self._connection)

    async def stop(self) -> None:
        self._idle.remove(self._connection)


class _Config(Config):
    """Formats the `date` header once a second."""

    _second = 0
    _headers: tuple[tuple[bytes, bytes], ...] = ()

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if second != self._second:
            self._second, self._headers = second, tuple(super().response_headers(protocol))
        return list(self._headers)


def _config(limits: ConnectionLimits) -> Config:
    config = _Config()
    config.alpn_protocols = ["h2", "http/1.1"] if limits.http2 else ["http/1.1"]
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("anyclaude.http")
    config.include_server_header = False
    config.keep_alive_max_requests = sys.maxsize
    return config
