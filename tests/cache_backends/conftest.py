"""The stores that the contract is tested on, and a clock that a test moves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cache_backends import CacheBackend
from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from cache_backends.redis import RedisBackend
from cache_backends.tiered import TieredBackend
from tests.cache_backends.redis_server import RedisServer
from tests.patience import PATIENCE_SECONDS

SMALLEST_DISK = 1024**2


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits for a condition that nothing announces; fails when it does not come true."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():  # noqa: ASYNC110 -- nothing announces it
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"did not come true within {PATIENCE_SECONDS:g} s: {what}")


async def value_of(backend: CacheBackend, key: str) -> bytes | None:
    found = await backend.get(key)
    return None if found is None else found.value


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all the tests that do not harm it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop, pause and fill."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


STORES = ["memory", "disk", "redis", "memory over disk", "memory over redis", "memory over disk over redis"]


@pytest.fixture(params=STORES)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CacheBackend]:
    """Each store in turn, empty, of about a mebibyte."""

    def redis() -> RedisBackend:
        server: RedisServer = request.getfixturevalue("shared_redis")
        server.command("FLUSHALL")
        # The contract is not about time: the machine may be busy.
        return RedisBackend(server.url, timeout=PATIENCE_SECONDS)

    stores: dict[str, Callable[[], CacheBackend]] = {
        "memory": lambda: MemoryBackend(max_bytes=SMALLEST_DISK),
        "disk": lambda: DiskBackend(tmp_path / "disk", max_bytes=SMALLEST_DISK),
        "redis": redis,
    }
    tiers = [stores[name]() for name in request.param.split(" over ")]
    backend = tiers[0] if len(tiers) == 1 else TieredBackend(tiers)
    yield backend
    await backend.aclose()
