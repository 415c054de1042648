"""`memory://`: a store in the process."""

import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

from cache_backends.base import BackendStats, Found, ValueTooLarge
from cache_backends.urls import BackendUrl, positive_integer, positive_size

DEFAULT_MAX_BYTES = 256 * 1024**2
# One long answer takes about as much.
SMALLEST_MAX_BYTES = 1024**2


class MemoryBackend:
    """LRU of at most `max_items` values (None: no limit) and `max_bytes`, keys included. `clock` returns seconds. An
    expired value counts until it is read or evicted."""

    leases = None
    durable = None

    def __init__(
        self,
        *,
        max_items: int | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_items = max_items
        self._most_items = math.inf if max_items is None else max_items
        self._max_bytes = max_bytes
        self._clock = clock
        # The least recently used first. Each entry is a value and the time when it expires.
        self._entries: OrderedDict[str, tuple[Found, float | None]] = OrderedDict()
        self._bytes = 0
        self._evictions = 0

    @classmethod
    def from_url(cls, url: BackendUrl) -> "MemoryBackend":
        if url.host or url.path:
            raise url.fail("nothing between memory:// and its parameters", repr(f"{url.host}{url.path}"))
        parameters = url.parameters({"max_items": positive_integer, "max_bytes": positive_size})
        if parameters.get("max_bytes", DEFAULT_MAX_BYTES) < SMALLEST_MAX_BYTES:
            raise url.fail("max_bytes of at least 1MiB", f"{parameters['max_bytes']} bytes")
        return cls(**parameters)

    def __repr__(self) -> str:
        return f"<MemoryBackend items={len(self._entries)} bytes={self._bytes}>"

    async def get(self, key: str) -> Found | None:
        found = self._find(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        if len(key) + len(value) > self._max_bytes:
            self._remove(key)
            raise ValueTooLarge(f"{self!r}: {len(value)} bytes do not fit into {self._max_bytes}")
        expires_at = None
        if ttl is not None:
            if ttl <= 0:
                self._remove(key)
                return
            expires_at = self._clock() + ttl
        entries = self._entries
        before = entries.get(key)
        entries[key] = Found(value), expires_at
        if before is None:
            self._bytes += len(key) + len(value)
        else:
            entries.move_to_end(key)
            self._bytes += len(value) - len(before[0].value)
        if self._bytes > self._max_bytes or len(entries) > self._most_items:
            self._evict()

    async def delete(self, key: str) -> bool:
        existed = self._find(key) is not None
        self._remove(key)
        return existed

    async def clear(self) -> int:
        count = len(self._entries)
        self._entries.clear()
        self._bytes = 0
        return count

    async def list_keys(self) -> AsyncIterator[str]:
        for key, (_, expires_at) in list(self._entries.items()):
            if expires_at is None or expires_at > self._clock():
                yield key

    async def stats(self) -> BackendStats:
        return BackendStats(
            backend="memory",
            items=len(self._entries),
            bytes=self._bytes,
            max_items=self._max_items,
            max_bytes=self._max_bytes,
            evictions=self._evictions,
        )

    async def aclose(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _find(self, key: str) -> Found | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        found, expires_at = entry
        if expires_at is None:
            return found
        ttl = expires_at - self._clock()
        if ttl <= 0:
            self._remove(key)
            return None
        return Found(found.value, ttl)

    def _evict(self) -> None:
        while self._bytes > self._max_bytes or len(self._entries) > self._most_items:
            self._remove(next(iter(self._entries)))
            self._evictions += 1

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(key) + len(entry[0].value)
