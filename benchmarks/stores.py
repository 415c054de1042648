"""The raw libraries that our cache backends use, with the least code that makes them awaitable."""

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import diskcache
import msgspec
import redis.asyncio

from benchmarks.case import Unavailable
from benchmarks.http_client import HOST
from benchmarks.ports import free_port
from benchmarks.processes import POLL_SECONDS, READY_SECONDS, process
from cache_backends import open_backend

PLENTY_BYTES = 2**30


class Store(Protocol):
    async def get(self, key: str) -> object | None: ...
    async def set(self, key: str, value: bytes) -> None: ...
    async def aclose(self) -> None: ...


class RawMemory:
    """An `OrderedDict` in the order of use with the limits that a cache needs."""

    def __init__(self, max_items: int = 100_000, max_bytes: int = PLENTY_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes) -> None:
        self._bytes += len(value) - len(self._entries.get(key, b""))
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_items or self._bytes > self._max_bytes:
            self._bytes -= len(self._entries.popitem(last=False)[1])

    async def aclose(self) -> None:
        self._entries.clear()


class RawDisk:
    """The calls block, so they run on a thread."""

    def __init__(self, folder: Path) -> None:
        self._cache = diskcache.Cache(str(folder), size_limit=PLENTY_BYTES)
        self._thread = ThreadPoolExecutor(1)

    async def get(self, key: str) -> bytes | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._cache.get, key)

    async def set(self, key: str, value: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._cache.set, key, value)

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._cache.close)
        self._thread.shutdown()


class RawRedis:
    def __init__(self, port: int) -> None:
        self._client = redis.asyncio.Redis(host=HOST, port=port)

    async def get(self, key: str) -> bytes | None:
        value = await self._client.get(key)
        return value if isinstance(value, bytes) else None

    async def set(self, key: str, value: bytes) -> None:
        await self._client.set(key, value)

    async def aclose(self) -> None:
        await self._client.aclose()


class RawTiers:
    """Writes go to one tier after the other."""

    def __init__(self, folder: Path) -> None:
        self._tiers = (RawMemory(), RawDisk(folder))

    async def get(self, key: str) -> bytes | None:
        first, second = self._tiers
        value = await first.get(key)
        if value is None:
            value = await second.get(key)
            if value is not None:
                await first.set(key, value)
        return value

    async def set(self, key: str, value: bytes) -> None:
        for tier in self._tiers:
            await tier.set(key, value)

    async def aclose(self) -> None:
        for tier in self._tiers:
            await tier.aclose()


class Pair(msgspec.Struct, frozen=True):
    ours: Store
    raw: Store


@asynccontextmanager
async def open_pair(name: str, scratch: Path) -> AsyncIterator[Pair]:
    """Both stores are empty. Raises `Unavailable` for redis if redis-server is not installed."""
    async with AsyncExitStack() as stack:
        folder = scratch / name
        match name:
            case "memory":
                pair = Pair(open_backend(f"memory://?max_bytes={PLENTY_BYTES}"), RawMemory())
            case "disk":
                pair = Pair(open_backend(f"disk://{folder}-ours?max_bytes={PLENTY_BYTES}"), RawDisk(folder))
            case "tiers":
                urls = [f"memory://?max_bytes={PLENTY_BYTES}", f"disk://{folder}-ours?max_bytes={PLENTY_BYTES}"]
                pair = Pair(open_backend(urls), RawTiers(folder))
            case "redis":
                port = await stack.enter_async_context(redis_server(scratch))
                pair = Pair(open_backend(f"redis://{HOST}:{port}/0"), RawRedis(port))
            case _:
                raise ValueError(f"expected memory, disk, tiers or redis, found {name!r}")
        stack.push_async_callback(pair.ours.aclose)
        stack.push_async_callback(pair.raw.aclose)
        yield pair


@asynccontextmanager
async def redis_server(scratch: Path) -> AsyncIterator[int]:
    if shutil.which("redis-server") is None:
        raise Unavailable("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    command = ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    async with process(command, scratch / "redis.log"):
        client = redis.asyncio.Redis(host=HOST, port=port)
        async with asyncio.timeout(READY_SECONDS):
            await _until_up(client)
        await client.aclose()
        yield port


async def _until_up(client: redis.asyncio.Redis) -> None:
    while True:
        try:
            await client.ping()
            return
        except redis.exceptions.ConnectionError:
            await asyncio.sleep(POLL_SECONDS)
