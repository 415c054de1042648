"""Out of a store and back: whole or not at all."""

import os
import time
from pathlib import Path

import pytest

from cache_backends import CacheUnavailable
from cache_backends.base import Found
from cache_backends.disk import DiskBackend
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import TieredBackend
from service.recording.archive import ArchiveError
from service.recording.transfer import Imported, export_answers, import_answers
from service.response_cache.record import AnswerRecord, encode_record
from service.response_cache.stored import CannotList, stored_answers
from tests.cache_backends.smallest import SmallestStore
from tests.response_cache.answers import text

KEY = "a" * 64
OTHER = "b" * 64


def value_of(key: str, content: str = "hello", stored_at: float = 1000.0) -> bytes:
    return encode_record(AnswerRecord(key, stored_at, text(content)))


async def test_what_was_exported_can_be_imported_with_its_age_and_its_time_limit(tmp_path: Path) -> None:
    source, target = DiskBackend(tmp_path / "source"), DiskBackend(tmp_path / "target")
    await source.set(KEY, value_of(KEY))
    await source.set(OTHER, value_of(OTHER), ttl=1000)
    assert await export_answers(source, tmp_path / "file") == 2
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert await import_answers(target, tmp_path / "file") == Imported(read=2, stored=2)
    found = {stored.key: stored async for stored in stored_answers(target)}
    assert found[KEY].ttl is None
    assert 900 < (found[OTHER].ttl or 0) <= 1000
    assert [found[key].record for key in (KEY, OTHER)] == [
        AnswerRecord(key, 1000.0, text("hello")) for key in (KEY, OTHER)
    ]
    await source.aclose()
    await target.aclose()


async def test_what_is_damaged_or_of_another_version_is_not_exported(tmp_path: Path) -> None:
    store = MemoryBackend()
    await store.set(KEY, value_of(KEY))
    await store.set(OTHER, value_of(OTHER)[:-1])
    assert await export_answers(store, tmp_path / "file") == 1


async def test_what_has_expired_since_is_not_imported(tmp_path: Path) -> None:
    store = MemoryBackend()
    await store.set(KEY, value_of(KEY), ttl=0.05)
    await export_answers(store, tmp_path / "file")
    while await store.get(KEY) is not None:
        time.sleep(0.01)  # noqa: ASYNC251 -- nothing else runs
    assert await import_answers(store, tmp_path / "file") == Imported(read=0, stored=0)


async def test_an_answer_from_the_future_is_not_fresh_for_ever(tmp_path: Path) -> None:
    source, target = MemoryBackend(), MemoryBackend()
    await source.set(KEY, value_of(KEY, stored_at=time.time() + 1e6))
    await export_answers(source, tmp_path / "file")
    await import_answers(target, tmp_path / "file")
    (stored,) = [stored async for stored in stored_answers(target)]
    assert stored.record.stored_at <= time.time()


async def test_only_answers_that_the_store_has_at_the_end_are_counted(tmp_path: Path) -> None:
    source = MemoryBackend()
    for index in range(10):
        await source.set(f"{index:064}", value_of(f"{index:064}"))
    await export_answers(source, tmp_path / "file")
    assert await import_answers(MemoryBackend(max_items=3), tmp_path / "file") == Imported(read=10, stored=3)
    assert await import_answers(MemoryBackend(max_bytes=50), tmp_path / "file") == Imported(read=10, stored=0)


@pytest.mark.parametrize("away", [0, 1])
async def test_an_import_into_tiers_goes_to_the_one_that_is_there(tmp_path: Path, away: int) -> None:
    """However quickly it comes: nothing waits in a queue behind `set`."""

    class Away(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            raise CacheUnavailable("away")

    source, target = MemoryBackend(), MemoryBackend()
    for index in range(200):
        await source.set(f"{index:064}", value_of(f"{index:064}", "x" * 400_000))
    await export_answers(source, tmp_path / "file")
    tiers = [target]
    tiers.insert(away, Away())
    imported = await import_answers(TieredBackend(tiers), tmp_path / "file")
    assert imported == Imported(read=200, stored=200, missed=200)
    assert (await target.stats()).items == 200


async def test_nothing_of_a_damaged_file_is_imported(tmp_path: Path) -> None:
    source, target = MemoryBackend(), MemoryBackend()
    await source.set(KEY, value_of(KEY))
    await source.set(OTHER, value_of(OTHER))
    await export_answers(source, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[:-20])
    with pytest.raises(ArchiveError, match="line 3"):
        await import_answers(target, tmp_path / "file")
    assert (await target.stats()).items == 0


class Failing(MemoryBackend):
    async def get(self, key: str) -> Found | None:
        raise CacheUnavailable("gone")


async def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    store = Failing()
    await store.set(KEY, value_of(KEY))
    (tmp_path / "file").write_text("the earlier one")
    with pytest.raises(CacheUnavailable):
        await export_answers(store, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "the earlier one"
    assert os.listdir(tmp_path) == ["file"]


async def test_a_store_that_does_not_list_its_keys_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotList):
        await export_answers(SmallestStore(), tmp_path / "file")
    assert os.listdir(tmp_path) == []
