"""The blocking half of `disk://`: a `diskcache.Cache` that never unpickles."""

import fcntl
import os
import re
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import diskcache

from cache_backends.base import CacheUnavailable

DATABASE = "cache.db"
SET_ASIDE = "damaged-"
POLL_SECONDS = 0.005

# diskcache's own names. Values are stored in rows, never in files. A value and its row are then written together or not
# at all, and a tampered row can name no file to read or remove.
SETTINGS: Mapping[str, Any] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "least-recently-used",
    "cull_limit": 0,  # `shrink` evicts instead, and counts
    "size_limit": 2**62,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2**11,
    "sqlite_journal_mode": "wal",
    # Truncating a mapped database kills the process with SIGBUS.
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 0,
}
METADATA = ("count", "size", "hits", "misses")

MODE_RAW = 1


class RefusedRow(Exception):
    pass


class DamagedDatabase(Exception):
    """A retry cannot help."""


class BytesOnlyDisk(diskcache.Disk):  # type: ignore[misc]
    """Accepts only rows whose key is text and whose value is bytes. diskcache unpickles a row of
    the `mode` pickle even in a database that only stored bytes (CVE-2025-69872)."""

    def put(self, key: object) -> tuple[str, bool]:
        if type(key) is not str:
            raise RefusedRow(f"expected a key of type str, found {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        if raw != 1 or type(key) is not str:
            raise RefusedRow(f"expected a key of type str, found {type(key).__name__} with raw={raw!r}")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, bytes]:
        if type(value) is not bytes or read:
            raise RefusedRow(f"expected a value of type bytes, found {type(value).__name__}")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        if mode != MODE_RAW or filename is not None or type(value) is not bytes or read:
            raise RefusedRow(f"expected bytes, found {type(value).__name__} with mode={mode!r}, filename={filename!r}")
        return value

    def remove(self, file_path: object) -> None:
        pass  # a row that names a file is not ours


class Database(diskcache.Cache):  # type: ignore[misc]
    """One connection for one thread. Reads take no lock and write nothing, so they work during a write of another
    process and on a full disk. `touch_all` records later which values were used."""

    def touch_all(self, used: Mapping[str, float]) -> None:
        """`used` maps keys to Unix seconds."""
        if not used:
            return
        with self.transact():
            for key, when in used.items():
                self._sql(
                    "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1 AND access_time < ?", (when, key, when)
                )

    def all_keys(self) -> list[str]:
        rows = self._sql(
            "SELECT key FROM Cache WHERE raw = 1 AND (expire_time IS NULL OR expire_time > ?)", (time.time(),)
        )
        return [key for (key,) in rows if isinstance(key, str)]

    def shrink(self, max_bytes: int) -> int:
        """Removes expired values, then the least recently used ones. Returns the number of the latter."""
        if self.volume() <= max_bytes:
            return 0
        self.expire()
        evicted = 0
        while (excess := self.volume() - max_bytes) > 0:
            with self.transact():
                rows = self._sql(
                    "SELECT rowid, length(value) FROM Cache ORDER BY access_time, rowid LIMIT 64"
                ).fetchall()
                for rowid, length in rows:
                    self._sql("DELETE FROM Cache WHERE rowid = ?", (rowid,))
                    evicted += 1
                    excess -= length or 0
                    if excess <= 0:
                        break
            if not rows:
                break
        return evicted


@contextmanager
def locked_folder(folder: Path, lock_seconds: float) -> Iterator[None]:
    """Creates a private folder and locks it against other processes. Raises OSError, and CacheUnavailable if it is
    locked, shared or holds other files."""
    _refuse_unfit(folder)
    _make_private_folder(folder)
    deadline = time.monotonic() + lock_seconds
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CacheUnavailable(f"{folder} is locked by another process") from None
                time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def inode(folder: Path) -> int | None:
    try:
        return (folder / DATABASE).stat().st_ino
    except FileNotFoundError:
        return None


def open_database(folder: Path, lock_seconds: float) -> Database:
    """Opens or creates a database that only its owner can read, in a locked folder. Raises DamagedDatabase, OSError,
    sqlite3.Error, and CacheUnavailable if it is locked."""
    _make_private_file(folder / DATABASE)
    _probe(folder / DATABASE, lock_seconds)
    try:
        database = Database(str(folder), timeout=lock_seconds, disk=BytesOnlyDisk, **SETTINGS)
    except (sqlite3.OperationalError, diskcache.Timeout, OSError):
        raise
    except Exception as exc:
        # diskcache trusts its Settings table, so a damaged one can raise anything.
        raise DamagedDatabase(str(exc)) from exc
    # The policy was needed to create the index over access_time. From now on it would turn every read into a write.
    database.reset("eviction_policy", "none", update=False)
    return database


def set_aside(folder: Path) -> Path:
    """Moves a damaged database into a folder next to it, and returns that folder. Only the newest is kept."""
    for old in folder.glob(SET_ASIDE + "*"):
        shutil.rmtree(old, ignore_errors=True)
    target = folder / f"{SET_ASIDE}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
    _make_private_folder(target)
    for path in list(folder.glob(DATABASE + "*")):
        # SQLite removes the journal of a database that is closed.
        with suppress(FileNotFoundError):
            path.rename(target / path.name)
    return target


def is_damage(error: Exception) -> bool:
    # The schema of a damaged database, and an error message that quotes it, may be no text.
    if isinstance(error, DamagedDatabase | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return re.search(r"no such (table|column)|malformed|not a database|decode to UTF-8", str(error)) is not None


def is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def without_timeout(error: BaseException) -> BaseException:
    """Returns the cause of diskcache's `Timeout`, which hides any error at the start of a transaction."""
    while isinstance(error, diskcache.Timeout) and error.__context__ is not None:
        error = error.__context__
    return error


def _probe(path: Path, lock_seconds: float) -> None:
    """Detects a lock that diskcache would retry for a minute, and settings that would overwrite its attributes."""
    connection = sqlite3.connect(path, timeout=lock_seconds, isolation_level=None)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "Settings" in tables:
            names = {name for (name,) in connection.execute("SELECT key FROM Settings")}
            if not names <= {*SETTINGS, *METADATA}:
                raise DamagedDatabase(f"unknown settings {sorted(map(str, names - {*SETTINGS, *METADATA}))}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as exc:
        if is_locked(exc):
            raise CacheUnavailable(f"{path} is locked by another process") from exc
        raise
    finally:
        connection.close()


def _refuse_unfit(folder: Path) -> None:
    # A folder that exists may be shared, so its mode stays. Others cannot read the files in it, and must not be able to
    # replace them.
    if not folder.is_dir():
        return
    found = sorted(path.name for path in folder.iterdir())
    mode = stat.S_IMODE(folder.stat().st_mode)
    if found and not any(name.startswith((DATABASE, SET_ASIDE)) for name in found):
        unfit = f"holds other files ({found[0]}): expected an empty folder, or one of this store's"
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        unfit = f"has mode {mode:04o}: expected a folder that only its owner can write to"
    else:
        return
    raise CacheUnavailable(f"{folder} {unfit}. Choose one below it, such as {folder / 'anyclaude'}")


def _make_private_folder(folder: Path) -> None:
    for missing in [path for path in (*reversed(folder.parents), folder) if not path.exists()]:
        with suppress(FileExistsError):  # another process was faster: the folder is its own
            missing.mkdir(mode=0o700)
            missing.chmod(0o700)


def _make_private_file(path: Path) -> None:
    # SQLite gives -wal and -shm the database's mode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o777 != 0o600:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
