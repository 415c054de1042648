"""Several stores as one, fastest first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import suppress
from logging import ERROR, INFO, getLogger
from typing import TypeVar, cast

from cache_backends.base import (
    BackendStats,
    CacheBackend,
    CacheUnavailable,
    ExtendedBackend,
    Found,
    Leases,
    ValueTooLarge,
    durable_part,
    leases_of,
)

# Further fills are skipped: the slower tier still has the value.
MAX_FILLS = 8

log = getLogger(__name__)

T = TypeVar("T")


class TieredBackend:
    """Reads fill the faster tiers, writes go to all tiers together. The store is unavailable only if all tiers fail.
    Two simultaneous changes of a key may leave different values in the tiers."""

    def __init__(self, tiers: Sequence[CacheBackend]) -> None:
        if not tiers:
            raise ValueError("expected at least one tier, found none")
        self._tiers = tuple(tiers)
        self._errors = 0
        self._shed = 0
        # Counts changes: a value read before a change must not be filled in after it.
        self._changes = 0
        self._fills: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<TieredBackend {' '.join(map(repr, self._tiers))}>"

    @property
    def durable(self) -> CacheBackend | None:
        return durable_part(self._tiers[-1])

    @property
    def leases(self) -> Leases | None:
        # The fastest shared tier is the first one in which other processes find a value.
        return next((leases for tier in self._tiers if (leases := leases_of(tier)) is not None), None)

    async def get(self, key: str) -> Found | None:
        failure: CacheUnavailable | None = None
        answered = False
        for index, tier in enumerate(self._tiers):
            changes = self._changes
            try:
                found = await tier.get(key)
            except CacheUnavailable as exc:
                failure = exc
                self._errors += 1
                continue
            answered = True
            if found is not None:
                if index and changes == self._changes:
                    await self._fill(index, key, found)
                return found
        if not answered and failure is not None:
            raise failure
        return None

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Raises `CacheUnavailable` if no tier stored the value."""
        self._changes += 1
        results = await asyncio.gather(*(tier.set(key, value, ttl=ttl) for tier in self._tiers), return_exceptions=True)
        for tier, result in zip(self._tiers, results, strict=True):
            if isinstance(result, BaseException):
                self._report(tier, result)
        failures = [result for result in results if isinstance(result, BaseException)]
        shed = [failure for failure in failures if isinstance(failure, ValueTooLarge)]
        if len(failures) == len(results):
            raise next((failure for failure in failures if failure not in shed), failures[0])
        self._shed += len(shed)
        self._errors += len(failures) - len(shed)

    async def delete(self, key: str) -> bool:
        """Raises `CacheUnavailable` if a tier failed. The others have removed the value."""
        self._changes += 1
        return any(await _all([tier.delete(key) for tier in self._tiers]))

    async def clear(self) -> int:
        """Returns the count of the fullest tier. Raises like `delete`."""
        self._changes += 1
        return max(await _all([tier.clear() for tier in self._tiers]))

    async def list_keys(self) -> AsyncIterator[str]:
        seen: set[str] = set()
        for tier in self._tiers:
            if isinstance(tier, ExtendedBackend):
                seen.update([key async for key in tier.list_keys()])
        for key in seen:
            yield key

    async def stats(self) -> BackendStats:
        tiers = tuple(await asyncio.gather(*map(_stats, self._tiers)))
        return BackendStats(
            backend="tiered",
            items=max((tier.items for tier in tiers if tier.items is not None), default=None),
            bytes=sum(tier.bytes or 0 for tier in tiers),
            evictions=tiers[-1].evictions,
            errors=self._errors,
            shed=self._shed,
            tiers=tiers,
        )

    async def aclose(self) -> None:
        for fill in self._fills:
            fill.cancel()
        if self._fills:
            await asyncio.wait(self._fills)
        await _all([tier.aclose() for tier in self._tiers])

    async def _fill(self, found_in: int, key: str, found: Found) -> None:
        # The reader does not wait for the faster tiers, which may wait for a disk.
        with suppress(CacheUnavailable):
            await self._tiers[0].set(key, found.value, ttl=found.ttl)
        for tier in self._tiers[1:found_in]:
            if len(self._fills) < MAX_FILLS:
                fill = asyncio.get_running_loop().create_task(self._fill_later(tier, key, found, self._changes))
                self._fills.add(fill)
                fill.add_done_callback(self._fills.discard)

    async def _fill_later(self, tier: CacheBackend, key: str, found: Found, changes: int) -> None:
        if changes == self._changes:
            try:
                await tier.set(key, found.value, ttl=found.ttl)
            except Exception as exc:
                self._report(tier, exc)

    def _report(self, tier: CacheBackend, failure: BaseException) -> None:
        expected = isinstance(failure, CacheUnavailable)
        log.log(INFO if expected else ERROR, "%r: not written: %r", tier, failure, exc_info=not expected and failure)


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Makes every call, then raises the first failure."""
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
