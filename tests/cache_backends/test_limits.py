"""What a single store does when it is full or a value has expired: the least recently used goes, and never more than
needed."""

from pathlib import Path

import pytest

from cache_backends import CacheBackend
from cache_backends.base import ValueTooLarge
from cache_backends.disk import DiskBackend
from tests.cache_backends.conftest import until, value_of

MEBIBYTE = 1024**2


@pytest.mark.parametrize("backend", ["memory", "disk"], indirect=True)
async def test_the_least_recently_used_goes_first(backend: CacheBackend) -> None:
    value = b"v" * 200_000
    for index in range(4):
        await backend.set(f"k{index}", value)
    assert await value_of(backend, "k0") == value
    for index in range(4, 6):
        await backend.set(f"k{index}", value)
    kept = [index for index in range(6) if await value_of(backend, f"k{index}") is not None]
    assert 0 in kept
    assert 5 in kept
    assert 1 not in kept
    assert (await backend.stats()).evictions == 6 - len(kept)


@pytest.mark.parametrize("backend", ["memory", "disk"], indirect=True)
async def test_the_limit_holds_after_every_set(backend: CacheBackend) -> None:
    for index in range(120):
        await backend.set(f"k{index}", b"v" * (index * 997 % 60_000))
        stats = await backend.stats()
        assert stats.bytes is not None
        assert stats.bytes <= MEBIBYTE
        assert await value_of(backend, f"k{index}") is not None


@pytest.mark.parametrize("backend", ["memory", "disk", "memory over disk"], indirect=True)
async def test_a_value_larger_than_the_store_is_refused(backend: CacheBackend) -> None:
    await backend.set("other", b"stays")
    await backend.set("k", b"old")
    with pytest.raises(ValueTooLarge):
        await backend.set("k", b"v" * (MEBIBYTE + 1))
    assert await value_of(backend, "k") is None
    assert await value_of(backend, "other") == b"stays"


@pytest.mark.parametrize("backend", ["memory", "disk", "redis"], indirect=True)
async def test_what_has_expired_cannot_be_deleted(backend: CacheBackend) -> None:
    await backend.set("k", b"v", ttl=0.02)

    async def is_gone() -> bool:
        return await value_of(backend, "k") is None

    await until(is_gone, "the value expires")
    assert await backend.delete("k") is False


async def test_a_value_may_take_all_but_half_a_mebibyte_of_a_disk_store(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path, max_bytes=2 * MEBIBYTE)
    most = MEBIBYTE + MEBIBYTE // 2
    await backend.set("k", b"v" * most)
    assert await value_of(backend, "k") == b"v" * most
    with pytest.raises(ValueTooLarge):
        await backend.set("k", b"v" * (most + 1))
    await backend.aclose()


async def test_no_more_is_evicted_than_has_to_be(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path, max_bytes=MEBIBYTE)
    for index in range(60):
        await backend.set(f"k{index}", b"v" * 20_000)
    kept = [index for index in range(60) if await value_of(backend, f"k{index}") is not None]
    assert kept == list(range(kept[0], 60))
    assert len(kept) >= 35
    assert (await backend.stats()).evictions == 60 - len(kept)
    await backend.aclose()


async def test_what_has_expired_is_not_counted_as_evicted(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path, max_bytes=MEBIBYTE)
    for index in range(4):
        await backend.set(f"soon{index}", b"v" * 200_000, ttl=0.001)
    for index in range(4):
        await backend.set(f"k{index}", b"v" * 200_000)
    assert (await backend.stats()).evictions == 0
    assert all([await value_of(backend, f"k{index}") is not None for index in range(4)])
    await backend.aclose()
