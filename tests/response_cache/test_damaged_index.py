"""A damaged index of the disk store leads to a whole row of another key: that must be a miss, never an answer."""

import sqlite3
import time
from pathlib import Path

import pytest

from cache_backends.disk import DiskBackend
from service.response_cache.record import AnswerRecord, decode_record, encode_record
from service.response_cache.statistics import CacheCounters
from service.response_cache.store import ResponseStore
from tests.response_cache.answers import text

KEYS = [f"{index:x}" * 64 for index in range(1, 7)]
# As diskcache asks.
LOOKUP = "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"


@pytest.fixture
async def database(tmp_path: Path) -> bytes:
    """The file of a store with an answer of its own under each key."""
    backend = DiskBackend(tmp_path / "store")
    for key in KEYS:
        await backend.set(key, encode_record(AnswerRecord(key, 1000.0, text(key))))
    await backend.aclose()
    connection = sqlite3.connect(tmp_path / "store" / "cache.db")
    connection.execute("PRAGMA journal_mode = DELETE")
    content = connection.serialize()
    connection.close()
    return content


def key_index(database: bytes) -> range:
    """The bytes of the page with the index over keys."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(database)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    return range((root - 1) * size, root * size)


def flipped(database: bytes, bit: int) -> bytes:
    damaged = bytearray(database)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def used_bits(database: bytes, page: range) -> list[int]:
    """All bits of a page but those of its gap of zeros, which nothing reads."""
    used = [place for place in page if any(database[max(page.start, place - 4) : place + 5])]
    return [place * 8 + bit for place in used for bit in range(8)]


def rows(database: bytes) -> dict[str, bytes]:
    """The values that a lookup of each key gives, if the database can be read at all."""
    connection = sqlite3.connect(":memory:")
    found = {}
    try:
        connection.deserialize(database)
        for key in KEYS:
            row = connection.execute(LOOKUP, (key, time.time())).fetchone()
            if row is not None and isinstance(row[0], bytes):
                found[key] = row[0]
    except sqlite3.DatabaseError:
        pass
    finally:
        connection.close()
    return found


async def test_no_flipped_bit_of_the_index_gives_the_answer_of_another_key(database: bytes) -> None:
    misled = 0
    for bit in used_bits(database, key_index(database)):
        for key, value in rows(flipped(database, bit)).items():
            record = decode_record(value, key)
            assert record is None or record.completion == text(key), f"bit {bit}"
            misled += record is None
    assert misled > 10, "expected flips that lead to the row of another key"


async def test_a_store_with_a_flipped_bit_answers_rightly_or_not_at_all(database: bytes, tmp_path: Path) -> None:
    bits = used_bits(database, key_index(database))
    for number, bit in enumerate(bits[:: len(bits) // 40]):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        (folder / "cache.db").write_bytes(flipped(database, bit))
        store = ResponseStore(DiskBackend(folder), CacheCounters(), lookup_seconds=10)
        for key in KEYS:
            record = await store.get(key)
            assert record is None or record.completion == text(key), f"bit {bit}"
        await store.aclose()
