import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from cache_backends import CacheBackend
from cache_backends.base import ValueTooLarge
from service.recording.archive import AnswerEntry, ArchiveWriter, new_header, read_entries
from service.response_cache.record import AnswerRecord, encode_record
from service.response_cache.stored import stored_answers
from service.storage import publish_file


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """`stored` counts those that the store contains afterwards, `missed` the writes that one of its tiers refused."""

    read: int
    stored: int
    missed: int = 0


async def export_answers(store: CacheBackend, path: Path) -> int:
    """Replaces `path` only on success. Returns the number of answers. Raises OSError and the errors of
    `stored_answers`."""
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
        publish_file(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return count


async def import_answers(store: CacheBackend, path: Path) -> Imported:
    """Verifies the whole file first. Raises ArchiveError and CacheUnavailable."""
    for _ in read_entries(path):
        pass
    keys = set()
    for entry in read_entries(path):
        if isinstance(entry, AnswerEntry):
            ttl = None if entry.expires_at is None else entry.expires_at - time.time()
            if ttl is None or ttl > 0:
                keys.add(entry.key)
                # An answer from the future would stay fresh for ever.
                record = AnswerRecord(entry.key, min(entry.stored_at, time.time()), entry.completion)
                with suppress(ValueTooLarge):
                    await store.set(entry.key, encode_record(record), ttl=ttl)
    stats = await store.stats()
    stored = [key for key in keys if await store.get(key) is not None]
    return Imported(read=len(keys), stored=len(stored), missed=stats.errors + stats.shed)
