"""Moves answers between a store and a file."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec

from cache_backends import CacheBackend
from cache_backends.base import ExtendedBackend, ValueTooLarge
from service.recording.archive import AnswerEntry, ArchiveWriter, new_header, read_entries
from service.response_cache.record import Record, decode_record, encode_record


class CannotList(Exception):
    """The store cannot list its keys."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """`size` is in bytes, `ttl` in seconds, None for ever."""

    key: str
    size: int
    ttl: float | None
    record: Record


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """`read` answers of the file have not expired; the store has `stored` of them at the end."""

    read: int
    stored: int


async def stored_answers(store: CacheBackend) -> AsyncIterator[Stored]:
    """Skips damaged answers and those of other versions. Raises CannotList and CacheUnavailable."""
    if not isinstance(store, ExtendedBackend):
        raise CannotList(f"{store!r} cannot list its keys.")
    async for key in store.list_keys():
        found = await store.get(key)
        record = None if found is None else decode_record(found.value, key)
        if found is not None and record is not None:
            yield Stored(key=key, size=len(found.value), ttl=found.ttl, record=record)


async def export_answers(store: CacheBackend, path: Path) -> int:
    """Replaces `path` unless the export fails; returns the number of answers. Raises OSError and what `stored_answers`
    raises."""
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


async def import_answers(store: CacheBackend, path: Path) -> Imported:
    """Verifies the whole file before the first answer is stored. Raises ArchiveError and CacheUnavailable."""
    for _ in read_entries(path):
        pass
    keys = set()
    for entry in read_entries(path):
        if isinstance(entry, AnswerEntry):
            ttl = None if entry.expires_at is None else entry.expires_at - time.time()
            if ttl is None or ttl > 0:
                keys.add(entry.key)
                # An answer from the future would be fresh for ever.
                record = Record(entry.key, min(entry.stored_at, time.time()), entry.completion)
                with suppress(ValueTooLarge):
                    await store.set(entry.key, encode_record(record), ttl=ttl)
    return Imported(read=len(keys), stored=len([key for key in keys if await store.get(key) is not None]))
