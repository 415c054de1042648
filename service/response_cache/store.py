import asyncio
import time
from collections.abc import Callable
from logging import DEBUG, WARNING, getLogger
from typing import Any

from cache_backends import CacheBackend
from cache_backends.base import Found, ValueTooLarge
from service.deadlines import Deadline, DeadlineExpired
from service.generation import Completion
from service.response_cache.base import STORE_TIMES
from service.response_cache.record import AnswerRecord, decode_record, encode_record
from service.response_cache.statistics import CacheCounters

WRITE_SECONDS = 10.0
DRAIN_SECONDS = 5.0
CLOSE_SECONDS = 5.0
# A store that hung is not called again before this time.
PAUSE_SECONDS = 5.0
MAX_UNWRITTEN_BYTES = 64 * 1024**2
COUNT_SECONDS = 0.005

log = getLogger(__name__)


class PendingWrite:
    def __init__(self, task: asyncio.Task[bool]) -> None:
        self._task = task

    @property
    def stored(self) -> bool:
        return self._task.done() and not self._task.cancelled() and self._task.result()

    async def wait(self, seconds: float) -> None:
        await asyncio.wait({self._task}, timeout=seconds)


class ResponseStore:
    """A `CacheBackend` whose failures never reach a request. Values can be read at once and are written in the
    background. A lookup longer than `lookup_seconds` is a miss. `now` is in Unix seconds."""

    def __init__(
        self,
        backend: CacheBackend,
        counters: CacheCounters,
        *,
        lookup_seconds: float = STORE_TIMES.lookup,
        max_unwritten_bytes: int = MAX_UNWRITTEN_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._counters = counters
        self._lookup_deadline = Deadline(lookup_seconds)
        self._max_unwritten_bytes = max_unwritten_bytes
        self._now = now
        self._unwritten: dict[str, bytes] = {}
        self._unwritten_bytes = 0
        self._writers: dict[str, asyncio.Task[bool]] = {}
        self._paused_until = 0.0
        self._counting: asyncio.Task[None] | None = None
        self._items = 0
        # Kinds of work that failed at the last try. A full disk can read but not write.
        self._failing: set[str] = set()

    @property
    def writes(self) -> bool:
        return self._failing.isdisjoint({"write", "queue"})

    async def get(self, key: str, max_age: float | None = None) -> AnswerRecord | None:
        """None for a record older than `max_age` seconds too."""
        data = self._unwritten.get(key)
        if data is None:
            data = await self._read(key)
            if data is None:
                return None
        record = decode_record(data, key)
        if record is None or (max_age is not None and self.age(record) > max_age):
            return None
        return record

    def age(self, record: AnswerRecord) -> float:
        """Returns seconds, 0 if the record's server has a clock that is ahead."""
        return max(0.0, self._now() - record.stored_at)

    def put(self, key: str, completion: Completion) -> "PendingWrite | None":
        data = encode_record(AnswerRecord(key, self._now(), completion))
        if self._unwritten_bytes + len(data) > self._max_unwritten_bytes:
            self._shed(f"{self._unwritten_bytes} bytes wait to be written")
            return None
        self._unwritten_bytes += len(data) - len(self._unwritten.get(key, b""))
        self._unwritten[key] = data
        writer = self._writers.get(key)
        if writer is None:
            writer = self._writers[key] = asyncio.get_running_loop().create_task(self._write(key))
        return PendingWrite(writer)

    async def written(self, key: str) -> bool:
        """Waits for the key's last write. True if the backend has its value."""
        writer = self._writers.get(key)
        if writer is not None:
            await asyncio.wait({writer})
            return not writer.cancelled() and writer.result()
        return await self.get(key) is not None

    async def wait_for_writes(self, key: str | None = None) -> None:
        writers = {writer for written, writer in self._writers.items() if key in (None, written)}
        if writers:
            await asyncio.wait(writers)

    async def count_items(self) -> int:
        """Returns the last count if the backend does not answer within milliseconds."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.get_running_loop().create_task(self._count())
        await asyncio.wait({self._counting}, timeout=COUNT_SECONDS)
        return self._items

    async def aclose(self) -> None:
        """Drains the queue and closes the backend, but waits for none that hangs."""
        late: set[asyncio.Task[Any]] = set()
        if self._writers:
            _, late = await asyncio.wait(set(self._writers.values()), timeout=DRAIN_SECONDS)
        for _ in late:
            self._shed(f"the store took longer than {DRAIN_SECONDS:g} s when the server ended")
        if self._counting is not None:
            late.add(self._counting)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=DRAIN_SECONDS)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._backend.aclose()
        except Exception as exc:
            self._fail("close", f"it did not close: {exc!r}")

    async def _read(self, key: str) -> bytes | None:
        if self._paused_until and asyncio.get_running_loop().time() < self._paused_until:
            return None
        try:
            value = await self._lookup_deadline.run(self._find(key))
        except DeadlineExpired:
            self._paused_until = asyncio.get_running_loop().time() + PAUSE_SECONDS
            seconds = self._lookup_deadline.seconds
            self._fail("read", f"took longer than {seconds} s; not asked for {PAUSE_SECONDS} s")
            return None
        except Exception as exc:
            self._fail("read", repr(exc))
            return None
        if self._failing:
            self._failing.discard("read")
        return value

    async def _find(self, key: str) -> bytes | None:
        found = await self._backend.get(key)
        # A backend of another package may return anything.
        return found.value if isinstance(found, Found) and isinstance(found.value, bytes) else None

    async def _write(self, key: str) -> bool:
        try:
            while True:
                data = self._unwritten[key]
                written = await self._set(key, data)
                if self._unwritten[key] is data:
                    return written
        finally:
            del self._writers[key]
            self._unwritten_bytes -= len(self._unwritten.pop(key))

    async def _set(self, key: str, data: bytes) -> bool:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._backend.set(key, data)
        except ValueTooLarge as exc:
            self._shed(str(exc))
            return False
        except Exception as exc:
            self._fail("write", repr(exc))
            return False
        self._counters.stored += 1
        self._failing -= {"write", "queue"}
        return True

    async def _count(self) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                stats = await self._backend.stats()
        except Exception as exc:
            log.debug("response cache, %r: its answers were not counted: %r", self._backend, exc)
            return
        if stats.items is not None:
            self._items = stats.items
        if stats.tiers:
            self._counters.tier_failures, self._counters.tier_shed = stats.errors, stats.shed

    def _shed(self, why: str) -> None:
        self._counters.shed += 1
        self._warn("queue", f"an answer is not stored: {why}")

    def _fail(self, kind: str, why: str) -> None:
        self._counters.store_failures += 1
        self._warn(kind, f"{kind} failed: {why}")

    def _warn(self, kind: str, message: str) -> None:
        # One warning for each outage, because every request reaches this line.
        log.log(DEBUG if kind in self._failing else WARNING, "response cache, %r: %s", self._backend, message)
        self._failing.add(kind)
