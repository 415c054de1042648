"""Several stores as one, fastest first: reads fill the faster tiers, writes to the slower ones happen behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import suppress
from logging import getLogger
from typing import Protocol, TypeVar, cast, runtime_checkable

from cache_backends.base import BackendStats, CacheBackend, CacheUnavailable, HasLeases, Leases, ListsKeys

MAX_UNWRITTEN_BYTES = 64 * 1024**2
DRAIN_SECONDS = 5.0
# How long a value may stay in a faster tier when the slower one cannot say for how long it holds.
UNKNOWN_TTL_SECONDS = 60.0
# How often somebody who waits for one value to be written looks whether it is.
LOOK_SECONDS = 0.01

log = getLogger(__name__)

T = TypeVar("T")
Found = tuple[bytes, float | None]


@runtime_checkable
class KnowsTtl(Protocol):
    """A store that tells how long a value has left, as all of ours do; others may."""

    async def get_with_ttl(self, key: str) -> Found | None:
        """Like `get`, with the seconds that are left, None for ever."""
        ...


class TieredBackend:
    """The first tier is written at once, the others by a task each, soon after; `aclose` waits for these, but not for
    longer than `drain_seconds`. A tier that fails is passed over: only when all do is the store unavailable.

    At most `max_unwritten_bytes` wait for a slower tier; what comes on top is not written there.
    """

    def __init__(
        self,
        tiers: Sequence[CacheBackend],
        *,
        max_unwritten_bytes: int = MAX_UNWRITTEN_BYTES,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        if not tiers:
            raise ValueError("expected at least one tier, found none")
        self._first = tiers[0]
        self._slower = [_SlowerTier(tier, max_unwritten_bytes) for tier in tiers[1:]]
        self._drain_seconds = drain_seconds
        self._errors = 0
        # Counts the changes: a value that was read before one must not be filled in after it.
        self._changes = 0
        self.leases = _find_leases(self._first, self._slower)

    def __repr__(self) -> str:
        return f"<TieredBackend {self._first!r} {' '.join(repr(slower.tier) for slower in self._slower)}>"

    async def get(self, key: str) -> bytes | None:
        failure: CacheUnavailable | None = None
        try:
            value = await self._first.get(key)
            if value is not None:
                return value
        except CacheUnavailable as exc:
            failure = exc
        found = await self._get_slower(key, failure)
        return None if found is None else found[0]

    async def get_with_ttl(self, key: str) -> Found | None:
        """Like `get`, with the seconds that are left, None for ever."""
        failure: CacheUnavailable | None = None
        try:
            found = await _get_with_ttl(self._first, key)
            if found is not None:
                return found
        except CacheUnavailable as exc:
            failure = exc
        return await self._get_slower(key, failure)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        if ttl is not None and ttl <= 0:
            await self.delete(key)
            return
        self._changes += 1
        for slower in self._slower:
            if not slower.write_behind(key, value, ttl):
                self._errors += 1
        try:
            await self._first.set(key, value, ttl=ttl)
        except CacheUnavailable:
            self._errors += 1
            if not self._slower:
                raise

    async def delete(self, key: str) -> bool:
        """Raises `CacheUnavailable` when a tier could not be asked; it is gone from the others all the same."""
        self._changes += 1
        return any(await _of_all([slower.delete(key) for slower in self._slower] + [self._first.delete(key)]))

    async def clear(self) -> int:
        """How many the fullest tier had. Raises like `delete`."""
        self._changes += 1
        return max(await _of_all([slower.clear() for slower in self._slower] + [self._first.clear()]))

    async def list_keys(self) -> AsyncIterator[str]:
        """Of all tiers together; those that cannot list their keys are passed over."""
        seen: set[str] = set()
        for slower in self._slower:
            seen.update(slower.unwritten_keys())
        for tier in (self._first, *(slower.tier for slower in self._slower)):
            if isinstance(tier, ListsKeys):
                seen.update([key async for key in tier.list_keys()])
        for key in seen:
            yield key

    async def stats(self) -> BackendStats:
        """`items` is of the fullest tier: the tiers hold the same values."""
        tiers = tuple([await _stats(tier) for tier in (self._first, *(slower.tier for slower in self._slower))])
        return BackendStats(
            backend="tiered",
            items=max((tier.items for tier in tiers if tier.items is not None), default=None),
            bytes=sum(tier.bytes or 0 for tier in tiers),
            evictions=tiers[-1].evictions,
            errors=self._errors + sum(slower.errors for slower in self._slower),
            tiers=tiers,
        )

    async def aclose(self) -> None:
        await asyncio.gather(*(slower.aclose(self._drain_seconds) for slower in self._slower))
        await self._first.aclose()

    async def _get_slower(self, key: str, failure: CacheUnavailable | None) -> Found | None:
        answered = failure is None
        self._errors += not answered
        for index, slower in enumerate(self._slower):
            changes = self._changes
            try:
                found = await slower.get(key)
            except CacheUnavailable as exc:
                failure = exc
                self._errors += 1
                continue
            answered = True
            if found is not None:
                if changes == self._changes:
                    await self._fill(key, found, index)
                return found
        if not answered and failure is not None:
            raise failure
        return None

    async def _fill(self, key: str, found: Found, index: int) -> None:
        value, ttl = found
        for faster in self._slower[:index]:
            faster.write_behind(key, value, ttl)
        with suppress(CacheUnavailable):
            await self._first.set(key, value, ttl=ttl)


class _SlowerTier:
    """One tier behind the first, and what has still to be written to it, oldest first, with the time when it
    expires on `time.monotonic`."""

    def __init__(self, tier: CacheBackend, max_unwritten_bytes: int) -> None:
        self.tier = tier
        self.errors = 0
        self._unwritten: dict[str, tuple[bytes, float | None]] = {}
        self._unwritten_bytes = 0
        self._max_unwritten_bytes = max_unwritten_bytes
        self._writer: asyncio.Task[None] | None = None
        # A deletion must not be overtaken by a write that began before it.
        self._changing = asyncio.Lock()

    async def get(self, key: str) -> Found | None:
        unwritten = self._unwritten.get(key)
        if unwritten is None:
            return await _get_with_ttl(self.tier, key)
        value, expires_at = unwritten
        ttl = _ttl(expires_at)
        return None if ttl is not None and ttl <= 0 else (value, ttl)

    def write_behind(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Whether there was room for it."""
        self._forget(key)
        if self._unwritten_bytes + len(value) > self._max_unwritten_bytes:
            return False
        self._unwritten[key] = value, None if ttl is None else time.monotonic() + ttl
        self._unwritten_bytes += len(value)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return True

    def unwritten_keys(self) -> list[str]:
        return [
            key
            for key, (_, expires_at) in self._unwritten.items()
            if expires_at is None or expires_at > time.monotonic()
        ]

    async def until_written(self, key: str) -> None:
        """Returns when nothing waits to be written under the key; whether it was, `errors` counts."""
        while key in self._unwritten and self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer}, timeout=LOOK_SECONDS)

    async def delete(self, key: str) -> bool:
        waited = self._forget(key)
        async with self._changing:
            return await self.tier.delete(key) or waited

    async def clear(self) -> int:
        waited = len(self._unwritten)
        self._unwritten.clear()
        self._unwritten_bytes = 0
        async with self._changing:
            return max(waited, await self.tier.clear())

    async def aclose(self, drain_seconds: float) -> None:
        if self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer}, timeout=drain_seconds)
            if self._unwritten:
                log.warning("%r: %d values were not written in time", self.tier, len(self._unwritten))
            self._writer.cancel()
            await asyncio.wait({self._writer})
        await self.tier.aclose()

    async def _write(self) -> None:
        while self._unwritten:
            async with self._changing:
                if not self._unwritten:
                    return
                key, entry = next(iter(self._unwritten.items()))
                value, expires_at = entry
                try:
                    await self.tier.set(key, value, ttl=_ttl(expires_at))
                except CacheUnavailable as exc:
                    self.errors += 1
                    log.info("%r: not written: %s", self.tier, exc)
                except Exception:
                    self.errors += 1
                    log.exception("%r: not written", self.tier)
                if self._unwritten.get(key) is entry:
                    self._forget(key)

    def _forget(self, key: str) -> bool:
        """Whether it was there and still held."""
        entry = self._unwritten.pop(key, None)
        if entry is None:
            return False
        value, expires_at = entry
        self._unwritten_bytes -= len(value)
        return expires_at is None or expires_at > time.monotonic()


class _TierLeases:
    """The leases of a slower tier, given back only when that tier has what was set."""

    def __init__(self, tier: _SlowerTier, leases: Leases) -> None:
        self._tier = tier
        self.acquire = leases.acquire
        self.keep = leases.keep
        self._release = leases.release

    async def release(self, key: str, holder: str) -> None:
        await self._tier.until_written(key)
        await self._release(key, holder)


def _find_leases(first: CacheBackend, slower: Iterable[_SlowerTier]) -> Leases | None:
    """Those of the fastest tier that has any: it is the first in which another process can find what is stored."""
    if isinstance(first, HasLeases) and first.leases is not None:
        return first.leases
    for tier in slower:
        if isinstance(tier.tier, HasLeases) and tier.tier.leases is not None:
            return _TierLeases(tier, tier.tier.leases)
    return None


def _ttl(expires_at: float | None) -> float | None:
    return None if expires_at is None else expires_at - time.monotonic()


async def _get_with_ttl(tier: CacheBackend, key: str) -> Found | None:
    if isinstance(tier, KnowsTtl):
        return await tier.get_with_ttl(key)
    value = await tier.get(key)
    return None if value is None else (value, UNKNOWN_TTL_SECONDS)


async def _of_all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What all of them return; every one is called, also when an earlier one raises."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast(list[T], results)


async def _stats(tier: CacheBackend) -> BackendStats:
    try:
        return await tier.stats()
    except CacheUnavailable:
        return BackendStats(backend=repr(tier), errors=1)
