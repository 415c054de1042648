"""Accepts connections and serves each with Hypercorn's HTTP, for as long as its client has it open.

Hypercorn's own server (0.18) keeps a connection that its client has closed until the keep-alive time is over: it waits
for all tasks of the connection, and one of them does nothing but wait for that time. Clients that open a connection
for each request, as scripts and health checks do, would so use up the process's files.
"""

import asyncio
from socket import socket

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework


class Connection(TCPServer):
    """One client's connection."""

    async def _read_data(self) -> None:
        """Until the client closes it, or breaks off."""
        await super()._read_data()
        await self.idle_task.stop()


async def serve_connections(app: ASGIFramework, config: Config, listener: socket, stop: asyncio.Event) -> None:
    """Until `stop`. Then nothing new is accepted, idle connections are closed, and the others have
    `config.graceful_timeout` seconds to end before they are cut."""
    loop = asyncio.get_running_loop()
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)
    open_connections: set[asyncio.Task[None]] = set()

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (asyncio calls this in a task of its own)
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)
        await Connection(wrapped, loop, config, context, {}, reader, writer)

    server = await asyncio.start_server(serve_connection, sock=listener, backlog=config.backlog)
    try:
        await stop.wait()
    finally:
        server.close()
        await context.terminated.set()
        if open_connections:
            _, late = await asyncio.wait(open_connections, timeout=config.graceful_timeout)
            for connection in late:
                connection.cancel()
            await asyncio.gather(*late, return_exceptions=True)
