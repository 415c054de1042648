"""A damaged file of the disk store may lead to a whole row of another key: that must be a miss, never an answer."""

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
FILE, JOURNAL = "cache.db", "cache.db-wal"
# As diskcache asks.
LOOKUP = "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"


@pytest.fixture
async def database(tmp_path: Path) -> bytes:
    """The file of a store with an answer of its own under each key."""
    backend = await filled_store(tmp_path / "store")
    await backend.aclose()
    connection = sqlite3.connect(tmp_path / "store" / FILE)
    connection.execute("PRAGMA journal_mode = DELETE")
    content = connection.serialize()
    connection.close()
    return content


@pytest.fixture
async def killed(tmp_path: Path) -> dict[str, bytes]:
    """The files of the same store if its process is killed: the answers are in the journal alone."""
    backend = await filled_store(tmp_path / "killed")
    files = {name: (tmp_path / "killed" / name).read_bytes() for name in (FILE, JOURNAL)}
    await backend.aclose()
    return files


async def filled_store(folder: Path) -> DiskBackend:
    backend = DiskBackend(folder)
    for key in KEYS:
        await backend.set(key, encode_record(AnswerRecord(key, 1000.0, text(key))))
    return backend


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


def used_bits(content: bytes, part: range) -> list[int]:
    """All bits of a part but those of its gaps of zeros, which nothing reads."""
    used = [place for place in part if any(content[max(part.start, place - 4) : place + 5])]
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
    except (sqlite3.DatabaseError, UnicodeDecodeError):
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


@pytest.mark.parametrize("every", [pytest.param(53, id="some"), pytest.param(1, id="all", marks=pytest.mark.endurance)])
def test_no_flipped_bit_of_the_file_gives_the_answer_of_another_key(every: int, database: bytes) -> None:
    for bit in used_bits(database, range(len(database)))[::every]:
        for key, value in rows(flipped(database, bit)).items():
            record = decode_record(value, key)
            assert record is None or record.completion == text(key), f"bit {bit}"


@pytest.mark.parametrize(
    "bits", [pytest.param(40, id="some"), pytest.param(500, id="more", marks=pytest.mark.endurance)]
)
@pytest.mark.parametrize("damaged", [FILE, JOURNAL])
async def test_a_store_with_a_flipped_bit_answers_rightly_or_not_at_all(
    damaged: str, bits: int, killed: dict[str, bytes], database: bytes, tmp_path: Path
) -> None:
    files = killed if damaged == JOURNAL else {FILE: database}
    used = used_bits(files[damaged], range(len(files[damaged])))
    found = 0
    for number, bit in enumerate(used[:: len(used) // bits]):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        for name, content in files.items():
            (folder / name).write_bytes(flipped(content, bit) if name == damaged else content)
        store = ResponseStore(DiskBackend(folder), CacheCounters(), lookup_seconds=10)
        for key in KEYS:
            record = await store.get(key)
            assert record is None or record.completion == text(key), f"bit {bit}"
            found += record is not None
        await store.aclose()
    assert found > bits, "expected most answers of most stores"
