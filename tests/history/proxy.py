import asyncio
from contextlib import suppress


class Proxy:
    """Between workers and Redis, on a loopback port. `delay` is in seconds for each piece; with `blocked`, pieces wait.
    `drop` cuts every connection."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def aclose(self) -> None:
        self.open.set()
        if self._server is not None:
            self._server.close()
        self.drop()
        while self._writers:  # noqa: ASYNC110 -- nothing announces it
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, server_writer}
        try:
            with suppress(ConnectionError):
                await asyncio.gather(self._copy(reader, server_writer), self._copy(server_reader, writer))
        finally:
            for end in (writer, server_writer):
                end.close()
                self._writers.discard(end)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            await asyncio.sleep(self.delay)
            await self.open.wait()
            writer.write(piece)
            await writer.drain()
        writer.close()
