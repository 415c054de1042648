"""What every store promises, whatever it keeps its values in."""

import asyncio

import pytest

from cache_backends import CacheBackend
from cache_backends.base import ExtendedBackend, Found
from tests.cache_backends.conftest import until, value_of

VALUES = [b"", b"x", b"\x00\xff\x80 not text", b"\x80\x04\x95 like a pickle", b"v" * 40_000, b"v" * 300_000]
KEYS = [
    "k",
    "",
    "a" * 200,
    "with space",
    "Umlaut \u00e4\u4e2d\U0001f600",
    "quote'\"; DROP TABLE Cache",
    "../../x",
    "*",
    "[a]",
]


async def test_what_was_never_set_is_none(backend: CacheBackend) -> None:
    assert await value_of(backend, "nothing") is None
    assert await backend.delete("nothing") is False
    assert await backend.clear() == 0


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{len(value)} bytes {value[:3].hex()}")
async def test_a_value_comes_back_as_it_was_set(backend: CacheBackend, value: bytes) -> None:
    await backend.set("k", value)
    found = await value_of(backend, "k")
    assert found == value
    assert type(found) is bytes
    assert await backend.get("k") == Found(value, None)


async def test_keys_are_told_apart(backend: CacheBackend) -> None:
    for index, key in enumerate(KEYS):
        await backend.set(key, str(index).encode())
    assert [await value_of(backend, key) for key in KEYS] == [str(index).encode() for index in range(len(KEYS))]
    assert await value_of(backend, "A" * 200) is None


async def test_the_keys_are_those_that_can_be_got(backend: CacheBackend) -> None:
    assert isinstance(backend, ExtendedBackend)
    assert [key async for key in backend.list_keys()] == []
    for key in KEYS:
        await backend.set(key, b"v")
    await backend.set("limit", b"v", ttl=0.05)
    await backend.delete("k")

    async def limit_has_passed() -> bool:
        return await value_of(backend, "limit") is None

    await until(limit_has_passed, "the time limit")
    assert sorted([key async for key in backend.list_keys()]) == sorted(KEYS[1:])


async def test_set_replaces(backend: CacheBackend) -> None:
    await backend.set("k", b"old")
    await backend.set("k", b"new")
    assert await value_of(backend, "k") == b"new"


async def test_set_takes_away_an_earlier_time_limit(backend: CacheBackend) -> None:
    await backend.set("k", b"old", ttl=0.05)
    await backend.set("k", b"new")
    await backend.set("limit", b"x", ttl=0.05)

    async def limit_has_passed() -> bool:
        return await value_of(backend, "limit") is None

    await until(limit_has_passed, "a value set after with the same limit expires")
    assert await value_of(backend, "k") == b"new"


async def test_a_time_limit_in_the_future_does_nothing_yet(backend: CacheBackend) -> None:
    await backend.set("k", b"v", ttl=3600)
    found = await backend.get("k")
    assert found is not None
    assert 3500 < (found.ttl or 0) <= 3600
    assert await value_of(backend, "k") == b"v"


async def test_a_value_expires(backend: CacheBackend) -> None:
    await backend.set("k", b"v", ttl=0.05)

    async def is_gone() -> bool:
        return await value_of(backend, "k") is None

    await until(is_gone, "the value expires")


@pytest.mark.parametrize("ttl", [0.0, -1.0])
async def test_a_time_limit_that_has_passed_stores_nothing(backend: CacheBackend, ttl: float) -> None:
    await backend.set("k", b"old")
    await backend.set("k", b"new", ttl=ttl)
    assert await value_of(backend, "k") is None


async def test_delete_removes_one(backend: CacheBackend) -> None:
    await backend.set("k", b"v")
    await backend.set("other", b"v")
    assert await backend.delete("k") is True
    assert await backend.delete("k") is False
    assert await value_of(backend, "k") is None
    assert await value_of(backend, "other") == b"v"


async def test_clear_removes_all_and_counts_them(backend: CacheBackend) -> None:
    for index in range(250):
        await backend.set(f"k{index}", b"v")
    assert await backend.clear() == 250
    assert [await value_of(backend, f"k{index}") for index in range(250)] == [None] * 250
    assert await backend.clear() == 0
    await backend.set("k0", b"again")
    assert await value_of(backend, "k0") == b"again"


async def test_stats_count(backend: CacheBackend) -> None:
    for index in range(3):
        await backend.set(f"k{index}", b"v" * 100)

    async def all_are_counted() -> bool:
        stats = await backend.stats()
        return stats.items == 3 and (stats.bytes is None or stats.bytes >= 300)

    await until(all_are_counted, "three items are counted")
    assert (await backend.stats()).errors == 0


async def test_many_tasks_at_once(backend: CacheBackend) -> None:
    async def own(task: int) -> None:
        for step in range(20):
            await backend.set(f"k{task}", f"{task} {step}".encode())
            assert await value_of(backend, f"k{task}") == f"{task} {step}".encode()
        assert await backend.delete(f"k{task}")
        assert await value_of(backend, f"k{task}") is None

    await asyncio.gather(*(own(task) for task in range(16)))


async def test_a_cancelled_call_leaves_the_store_usable(backend: CacheBackend) -> None:
    await backend.set("k", b"v")
    for call in (value_of(backend, "k"), backend.set("k", b"v"), backend.stats()):
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    assert await value_of(backend, "k") == b"v"


async def test_aclose_may_be_called_twice(backend: CacheBackend) -> None:
    await backend.set("k", b"v")
    await backend.aclose()
    await backend.aclose()
