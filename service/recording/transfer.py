"""Answers out of a store into a file, and back."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from cache_backends import CacheBackend
from cache_backends.base import ListsKeys
from cache_backends.tiered import KnowsTtl
from service.recording.archive import AnswerEntry, ArchiveWriter, new_header, read_entries
from service.response_cache.record import Record, decode_record, encode_record


class CannotList(Exception):
    """The store does not say what it holds."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An answer in a store; `size` in bytes, `ttl` in seconds, None for ever."""

    key: str
    size: int
    ttl: float | None
    record: Record


async def stored_answers(store: CacheBackend) -> AsyncIterator[Stored]:
    """Every whole answer of this version. Raises CannotList and CacheUnavailable."""
    if not isinstance(store, ListsKeys):
        raise CannotList(f"{store!r} does not say what it holds.")
    async for key in store.list_keys():
        value, ttl = await _get(store, key)
        record = None if value is None else decode_record(value)
        if value is not None and record is not None:
            yield Stored(key=key, size=len(value), ttl=ttl, record=record)


async def export_answers(store: CacheBackend, path: Path) -> int:
    """Replaces `path` with a file of every answer, for its owner alone, and returns how many there are. What fails on
    the way leaves `path` as it was. Raises like `stored_answers`, and OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with ArchiveWriter(fresh, new_header(None)) as writer:
            async for stored in stored_answers(store):
                expires_at = None if stored.ttl is None else time.time() + stored.ttl
                writer.add(
                    AnswerEntry(
                        key=stored.key,
                        stored_at=stored.record.stored_at,
                        expires_at=expires_at,
                        completion=stored.record.completion,
                    )
                )
                count += 1
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return count


async def import_answers(store: CacheBackend, path: Path) -> int:
    """Puts the answers of a file into a store, unless they have expired, and returns how many. The whole file is
    verified before the first is stored. Raises ArchiveError and CacheUnavailable."""
    for _ in read_entries(path):
        pass
    count = 0
    for entry in read_entries(path):
        if isinstance(entry, AnswerEntry):
            ttl = None if entry.expires_at is None else entry.expires_at - time.time()
            if ttl is None or ttl > 0:
                await store.set(entry.key, encode_record(Record(entry.stored_at, entry.completion)), ttl=ttl)
                count += 1
    return count


async def _get(store: CacheBackend, key: str) -> tuple[bytes | None, float | None]:
    if isinstance(store, KnowsTtl):
        return await store.get_with_ttl(key) or (None, None)
    return await store.get(key), None
