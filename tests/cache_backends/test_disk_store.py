"""The database of `disk://` and its folder, without the threads around them."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import diskcache
import pytest

from cache_backends import CacheUnavailable
from cache_backends.disk_store import (
    MODE_RAW,
    DamagedDatabase,
    Database,
    inode,
    is_damage,
    is_locked,
    locked_folder,
    open_database,
    set_aside,
    without_timeout,
)
from tests.patience import PATIENCE_SECONDS

VALUE = b"v" * 20_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path, 1.0)
    yield database
    database.close()


def fill(database: Database, *keys: str) -> None:
    for position, key in enumerate(keys):
        database.set(key, VALUE)
        database.touch_all({key: time.time() + position})


def test_a_database_within_its_bound_keeps_everything(database: Database) -> None:
    fill(database, "a", "b", "c")
    assert database.shrink(database.volume()) == 0
    assert database.all_keys() == ["a", "b", "c"]


def test_a_database_over_its_bound_loses_the_least_recently_used(database: Database) -> None:
    fill(database, "a", "b", "c", "d")
    assert database.shrink(database.volume() - 1) == 1
    assert database.shrink(database.volume() - len(VALUE) - 1) == 2
    assert database.all_keys() == ["d"]


def test_an_empty_database_over_its_bound_is_left_alone(database: Database) -> None:
    assert database.shrink(1) == 0
    fill(database, "a")
    assert database.shrink(1) == 1


def test_more_values_than_are_looked_at_together_are_evicted(database: Database) -> None:
    with database.transact():
        for number in range(100):
            database.set(str(number), VALUE)
    assert database.shrink(1) == 100


def test_what_has_expired_goes_first_and_is_not_listed(database: Database) -> None:
    database.set("a", VALUE)
    database.set("old", VALUE, expire=-1)
    database.set("later", VALUE, expire=1000)
    assert database.all_keys() == ["a", "later"]
    assert database.shrink(database.volume() - 1) == 0
    assert len(database) == 2


def coded(message: str, code: int) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (DamagedDatabase("unknown settings"), True),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), True),
        (coded("", sqlite3.SQLITE_CORRUPT), True),
        (coded("", sqlite3.SQLITE_NOTADB), True),
        (coded("", sqlite3.SQLITE_CORRUPT_INDEX), True),
        (coded("", sqlite3.SQLITE_FULL), False),
        (sqlite3.OperationalError("no such table: Cache"), True),
        (sqlite3.OperationalError("no such column: raw"), True),
        (sqlite3.OperationalError("Could not decode to UTF-8 column 'value'"), True),
        (sqlite3.DatabaseError("malformed database schema"), True),
        (sqlite3.DatabaseError("file is not a database"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (OSError("disk I/O error"), False),
    ],
    ids=repr,
)
def test_damage_is_told_from_what_may_pass(error: Exception, damage: bool) -> None:
    assert is_damage(error) == damage


def test_a_lock_is_found_within_a_timeout() -> None:
    hiding, alone = diskcache.Timeout(), diskcache.Timeout()
    hiding.__context__ = sqlite3.OperationalError("database is locked")
    assert is_locked(without_timeout(hiding))
    assert without_timeout(alone) is alone
    assert not is_locked(alone)
    assert not is_locked(sqlite3.OperationalError("disk is full"))
    assert not is_locked(OSError("locked"))


def test_a_database_has_an_inode_once_it_is_there(tmp_path: Path) -> None:
    assert inode(tmp_path) is None
    open_database(tmp_path, 1.0).close()
    assert inode(tmp_path) == (tmp_path / "cache.db").stat().st_ino


def test_a_damaged_database_is_moved_into_a_private_folder_named_by_the_time(tmp_path: Path) -> None:
    for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
        (tmp_path / name).touch()
    (tmp_path / "damaged-old").mkdir()
    (tmp_path / "damaged-old" / "cache.db").touch()
    day = time.strftime("%Y%m%dT", time.gmtime())
    aside = set_aside(tmp_path)
    assert list(tmp_path.iterdir()) == [aside]
    assert {path.name for path in aside.iterdir()} == {"cache.db", "cache.db-wal", "cache.db-shm"}
    assert aside.name.startswith((f"damaged-{day}", f"damaged-{time.strftime('%Y%m%dT', time.gmtime())}"))
    assert stat.S_IMODE(aside.stat().st_mode) == 0o700


def test_two_databases_that_are_damaged_in_one_second_have_two_folders(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        (tmp_path / "cache.db").touch()
        names.add(set_aside(tmp_path).name)
    assert len(names) == 3


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """A connection of another process writes."""
    connection = sqlite3.connect(folder / "cache.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.close()


def test_a_database_that_another_writes_to_is_not_opened(tmp_path: Path) -> None:
    open_database(tmp_path, 1.0).close()
    with locking(tmp_path), pytest.raises(CacheUnavailable, match=r"cache\.db is locked by another process"):
        open_database(tmp_path, 0.01)
    open_database(tmp_path, 0.01).close()


def test_values_are_stored_in_rows_and_have_no_size_beside_their_pages(database: Database) -> None:
    fill(database, "a")
    assert database._sql("SELECT size, filename, mode, value FROM Cache").fetchone() == (0, None, MODE_RAW, VALUE)


def test_reads_write_nothing(database: Database, tmp_path: Path) -> None:
    fill(database, "a")
    before = database._sql("SELECT access_time FROM Cache").fetchone()
    assert database.get("a") == VALUE
    assert database._sql("SELECT access_time FROM Cache").fetchone() == before


def test_a_folder_is_locked_until_the_end_of_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "store"
    with locked_folder(folder, 0):
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        with pytest.raises(CacheUnavailable, match="store is locked by another process"), locked_folder(folder, 0):
            pass
    with locked_folder(folder, 0):
        pass


def test_a_locked_folder_is_waited_for(tmp_path: Path) -> None:
    entered, waiting = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        with locked_folder(tmp_path, 60):
            entered.set()

    with locked_folder(tmp_path, 0):
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        waiting.wait(PATIENCE_SECONDS)
        assert not entered.wait(0.05)
    assert entered.wait(PATIENCE_SECONDS)
    waiter.join(PATIENCE_SECONDS)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    with locked_folder(tmp_path, 0):
        assert open_descriptors(tmp_path)
        open_database(tmp_path, 1.0).close()
    assert not open_descriptors(tmp_path)


def open_descriptors(folder: Path) -> list[int]:
    """Returns this process's descriptors of the folder and of what is in it."""
    ours = [path.stat() for path in (folder, *folder.iterdir())]
    found = []
    for descriptor in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):
            if any(os.path.samestat(os.fstat(descriptor), status) for status in ours):
                found.append(descriptor)
    return found
