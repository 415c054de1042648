"""Documents in the store of the response cache, whatever the store does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cache_backends import BackendStats, CacheBackend, CacheUnavailable, Found
from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import TieredBackend
from service.response_cache.documents import SECONDS, DocumentStore
from service.response_cache.record import decode_record
from tests.simulation.loop import now, simulate


class BrokenBackend:
    async def get(self, key: str) -> Found | None:
        raise CacheUnavailable("the disk is gone")

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        raise CacheUnavailable("the disk is gone")

    async def delete(self, key: str) -> bool:
        raise CacheUnavailable("the disk is gone")

    async def clear(self) -> int:
        raise CacheUnavailable("the disk is gone")

    async def stats(self) -> BackendStats:
        raise CacheUnavailable("the disk is gone")

    async def aclose(self) -> None:
        return None


class HangingBackend(BrokenBackend):
    async def get(self, key: str) -> Found | None:
        return await asyncio.get_running_loop().create_future()

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        await asyncio.get_running_loop().create_future()

    async def delete(self, key: str) -> bool:
        return await asyncio.get_running_loop().create_future()


async def test_a_document_is_found_by_its_name_until_it_is_removed(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path / "store")
    documents = DocumentStore(backend, ttl_seconds=60)
    await documents.put("one", b"first")
    await documents.put("two", b"")

    assert [await documents.get(name) for name in ("one", "two", "three")] == [b"first", b"", None]
    assert [await documents.remove("one"), await documents.remove("one")] == [True, False]
    assert await documents.get("one") is None
    await backend.aclose()


async def test_a_damaged_document_is_missing_and_none_is_taken_for_an_answer(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path / "store")
    documents = DocumentStore(backend, ttl_seconds=60)
    await documents.put("one", b"first")
    (key,) = [key async for key in backend.list_keys()]
    found = await backend.get(key)
    assert found is not None
    assert found.ttl is not None
    assert decode_record(found.value, key) is None
    for damaged in (found.value[:-1], b"", found.value[1:], bytes([*found.value[:-1], 0])):
        await backend.set(key, damaged)
        assert await documents.get("one") is None
    await backend.aclose()


async def test_the_document_of_another_name_is_not_taken_for_this_one(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path / "store")
    documents = DocumentStore(backend, ttl_seconds=60)
    await documents.put("one", b"same")
    (one,) = [key async for key in backend.list_keys()]
    await documents.put("two", b"same")
    (two,) = [key async for key in backend.list_keys() if key != one]
    found = await backend.get(two)
    assert found is not None
    await backend.set(one, found.value)
    assert [await documents.get(name) for name in ("one", "two")] == [None, b"same"]
    await backend.aclose()


@pytest.mark.parametrize("tiers", [1, 2])
async def test_documents_push_no_answers_out_of_memory(tmp_path: Path, tiers: int) -> None:
    memory, disk = MemoryBackend(), DiskBackend(tmp_path / "store")
    backend: CacheBackend = TieredBackend([memory, disk]) if tiers == 2 else memory
    documents = DocumentStore(backend, ttl_seconds=60)
    await documents.put("one", b"first")
    assert (await memory.stats()).items == 0
    assert await documents.get("one") == (b"first" if tiers == 2 else None)
    assert await documents.remove("one") is (tiers == 2)
    await backend.aclose()
    await disk.aclose()


async def test_a_store_that_is_not_durable_is_asked_for_no_document(caplog: pytest.LogCaptureFixture) -> None:
    class Passing(BrokenBackend):
        leases = None
        durable = None

        async def list_keys(self) -> AsyncIterator[str]:
            yield ""

    await DocumentStore(TieredBackend([MemoryBackend(), Passing()]), ttl_seconds=60).put("one", b"first")
    assert not caplog.records


async def test_a_failing_store_fails_no_request_and_each_outage_is_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    documents = DocumentStore(BrokenBackend(), ttl_seconds=60)
    for _ in range(2):
        await documents.put("one", b"first")
        assert await documents.get("one") is None
        assert await documents.remove("one") is False
    assert [record.getMessage().partition("a document was ")[2] for record in caplog.records] == [
        f"not {work}: CacheUnavailable('the disk is gone')" for work in ("written", "read", "removed")
    ]


def test_a_store_that_hangs_is_given_up() -> None:
    async def main() -> None:
        documents = DocumentStore(HangingBackend(), ttl_seconds=60)
        assert await documents.get("one") is None
        assert now() == SECONDS
        await documents.put("one", b"first")
        assert now() == 2 * SECONDS
        assert await documents.remove("one") is False
        assert now() == 3 * SECONDS

    simulate(main())
