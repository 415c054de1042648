"""The stores that the contract is tested on, and a clock that a test moves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cache_backends import CacheBackend
from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import TieredBackend

SMALLEST_DISK = 1024**2


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 10.0) -> None:
    """Waits for a condition that nothing announces; fails when it does not come true."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 -- nothing announces it
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"did not come true within {seconds} s: {what}")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "disk", "memory over disk", "memory over memory over disk"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CacheBackend]:
    """Each store in turn, empty, of about a mebibyte."""
    stores: dict[str, Callable[[], CacheBackend]] = {
        "memory": lambda: MemoryBackend(max_bytes=SMALLEST_DISK),
        "disk": lambda: DiskBackend(tmp_path / "disk", max_bytes=SMALLEST_DISK),
    }
    tiers = [stores[name]() for name in request.param.split(" over ")]
    backend = tiers[0] if len(tiers) == 1 else TieredBackend(tiers)
    yield backend
    await backend.aclose()
