"""`disk://`: a store on disk, in threads of its own."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import suppress
from logging import DEBUG, WARNING, getLogger
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

import diskcache

from cache_backends.base import BackendStats, CacheUnavailable, Found, ValueTooLarge
from cache_backends.disk_store import (
    DamagedDatabase,
    Database,
    RefusedRow,
    inode,
    is_damage,
    is_locked,
    locked_folder,
    open_database,
    set_aside,
    without_timeout,
)
from cache_backends.urls import BackendUrl, positive_size

DEFAULT_MAX_BYTES = 1024**3
# An empty database has about 40 KiB, which must be well below the limit.
SMALLEST_MAX_BYTES = 1024**2
LOCK_SECONDS = 1.0
MAX_UNWRITTEN_USES = 1000

log = getLogger(__name__)

T = TypeVar("T")


class DiskBackend:
    """A folder with one SQLite database of at most `max_bytes` and a journal of about 4 MiB. Processes may share it. A
    damaged database is moved aside and replaced."""

    leases = None

    def __init__(self, folder: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, lock_seconds: float = LOCK_SECONDS) -> None:
        if max_bytes < SMALLEST_MAX_BYTES:
            raise ValueError(f"expected max_bytes of at least {SMALLEST_MAX_BYTES}, found {max_bytes}")
        self._folder = folder
        self._max_bytes = max_bytes
        shelf = _Shelf(folder, lock_seconds)
        # Two threads, because a write may wait for a lock or the disk, and reads must not.
        self._reader = _Worker(shelf, "read")
        self._writer = _Worker(shelf, "write")
        self._used: dict[str, float] = {}
        self._evictions = 0

    @classmethod
    def from_url(cls, url: BackendUrl) -> "DiskBackend":
        folder = Path(url.path)
        if url.host == "~":
            folder = Path.home() / url.path.lstrip("/")
        elif url.host or not folder.is_absolute() or folder == Path("/"):
            raise url.fail("disk:///absolute/path or disk://~/path", repr(f"{url.host}{url.path}"))
        parameters = url.parameters({"max_bytes": positive_size})
        if parameters.get("max_bytes", DEFAULT_MAX_BYTES) < SMALLEST_MAX_BYTES:
            raise url.fail("max_bytes of at least 1MiB", f"{parameters['max_bytes']} bytes")
        return cls(folder, **parameters)

    def __repr__(self) -> str:
        return f"<DiskBackend {self._folder}>"

    @property
    def durable(self) -> "DiskBackend":
        return self

    async def get(self, key: str) -> Found | None:
        try:
            value, expires_at = await self._reader.run(lambda database: database.get(key, expire_time=True))
        except RefusedRow:
            log.warning("%s: removed a row that this store did not write", self._folder)
            await self._writer.run(lambda database: database.delete(key))
            return None
        if value is None:
            return None
        now = time.time()
        self._used[key] = now
        if len(self._used) >= MAX_UNWRITTEN_USES:
            with suppress(CacheUnavailable):  # a full disk still has the value
                await self._write_uses()
        return Found(value, None if expires_at is None else expires_at - now)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        limit = self._max_bytes - SMALLEST_MAX_BYTES // 2
        if len(value) > limit or (ttl is not None and ttl <= 0):
            await self.delete(key)
            if len(value) > limit:
                raise ValueTooLarge(f"{self!r}: {len(value)} bytes do not fit into {limit}")
            return
        used = self._take_uses()

        def write(database: Database) -> int:
            database.touch_all(used)
            database.set(key, value, expire=ttl)
            return database.shrink(self._max_bytes)

        self._evictions += await self._writer.run(write)

    async def delete(self, key: str) -> bool:
        return await self._writer.run(lambda database: bool(database.delete(key)))

    async def clear(self) -> int:
        return await self._writer.run(lambda database: int(database.clear()))

    async def list_keys(self) -> AsyncIterator[str]:
        for key in await self._reader.run(lambda database: database.all_keys()):
            yield key

    async def stats(self) -> BackendStats:
        items, volume = await self._reader.run(lambda database: (len(database), database.volume()))
        return BackendStats(
            backend="disk",
            items=items,
            bytes=volume,
            max_bytes=self._max_bytes,
            evictions=self._evictions,
            errors=self._reader.errors + self._writer.errors,
        )

    async def aclose(self) -> None:
        if self._used and not self._writer.closed:
            try:
                await self._write_uses()
            except CacheUnavailable as exc:
                log.warning("%s", exc)
        await self._reader.aclose()
        await self._writer.aclose()

    def _take_uses(self) -> dict[str, float]:
        # Runs on the event loop, which adds to `_used` while the writer's thread reads the old dictionary.
        used, self._used = self._used, {}
        return used

    async def _write_uses(self) -> None:
        used = self._take_uses()
        await self._writer.run(lambda database: database.touch_all(used))


class _Opened(NamedTuple):
    database: Database
    age: int
    inode: int | None


class _Shelf:
    """The folder that both threads open. `age` counts replaced databases, so connections to an older one are
    recognized."""

    def __init__(self, folder: Path, lock_seconds: float) -> None:
        self.folder = folder
        self.age = 0
        self._lock_seconds = lock_seconds
        self._lock = threading.Lock()

    def open(self) -> _Opened:
        with self._lock, locked_folder(self.folder, self._lock_seconds):
            try:
                database = open_database(self.folder, self._lock_seconds)
            except (DamagedDatabase, sqlite3.DatabaseError, UnicodeDecodeError) as exc:
                if not is_damage(exc):
                    raise
                self.age += 1
                self._replace(exc)
                database = open_database(self.folder, self._lock_seconds)
            return _Opened(database, self.age, inode(self.folder))

    def replace(self, opened: _Opened, damage: Exception) -> None:
        """Does nothing if the other thread or another process has replaced the database."""
        with self._lock, locked_folder(self.folder, self._lock_seconds):
            if opened.age != self.age:
                return
            self.age += 1
            if opened.inode == inode(self.folder):
                self._replace(damage)

    def _replace(self, damage: Exception) -> None:
        target = set_aside(self.folder)
        log.error("%s is damaged (%s): it was set aside as %s, and a new one is made", self.folder, damage, target)


class _Worker:
    """One thread with its own connection. Its errors become `CacheUnavailable`."""

    def __init__(self, shelf: _Shelf, name: str) -> None:
        self.errors = 0
        self.closed = False
        self._failing = False
        self._shelf = shelf
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # At its exit Python waits for a pool's threads, and a dead disk would keep the process.
        self._thread = threading.Thread(target=self._do_jobs, name=f"disk-cache-{name}", daemon=True)
        self._opened: _Opened | None = None

    async def run(self, work: Callable[[Database], T]) -> T:
        if self.closed:
            raise CacheUnavailable(f"{self._shelf.folder} was closed")
        return await self._do(lambda: self._run(work))

    async def aclose(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            await self._do(self._close)
        finally:
            self._jobs.put(None)

    async def _do(self, job: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._jobs.put((job, done))
        if self._thread.ident is None:
            self._thread.start()
        return await asyncio.wrap_future(done)

    def _do_jobs(self) -> None:
        while (next_job := self._jobs.get()) is not None:
            job, done = next_job
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(job())
                except BaseException as exc:
                    done.set_exception(exc)

    def _run(self, work: Callable[[Database], T]) -> T:
        # One warning for each outage.
        try:
            result = self._work(work)
        except CacheUnavailable as exc:
            self.errors += 1
            log.log(DEBUG if self._failing else WARNING, "%s: going on without it until it works", exc)
            self._failing = True
            raise
        self._failing = False
        return result

    def _work(self, work: Callable[[Database], T]) -> T:
        try:
            try:
                return work(self._database())
            except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:
                if not is_damage(exc) or self._opened is None:
                    raise
                self._shelf.replace(self._opened, exc)
                return work(self._database())
        except (diskcache.Timeout, sqlite3.Error, OSError, DamagedDatabase, UnicodeDecodeError) as exc:
            error = without_timeout(exc)
            if is_locked(error):
                raise CacheUnavailable(f"{self._shelf.folder} is locked by another process") from exc
            # The next call opens the database again, because the disk may be back.
            self._close()
            raise CacheUnavailable(f"{self._shelf.folder}: {error}") from exc

    def _database(self) -> Database:
        if self._opened is not None and self._opened.age != self._shelf.age:
            self._close()
        if self._opened is None:
            self._opened = self._shelf.open()
        return self._opened.database

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.database.close()
