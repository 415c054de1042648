"""A store that servers share, seen over connections that are slow, fail and break off."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import msgspec

from cache_backends.base import BackendStats, CacheUnavailable, Found
from cache_backends.memory import MemoryBackend
from service.response_cache.replicas import Note


class _Held(msgspec.Struct):
    holder: str
    note: str
    ends: float


class SharedStore:
    """Values and leases, in the memory of a server that never fails. `disturbed` is set by whoever loses a call."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.held: dict[str, _Held] = {}
        self.disturbed = False
        self._freed: set[str] = set()

    def holder(self, key: str) -> _Held | None:
        held = self.held.get(key)
        if held is None or held.ends > asyncio.get_running_loop().time():
            return held
        self._freed.add(key)
        return None

    def hold(self, key: str, holder: str, note: str, ttl: float) -> None:
        read = msgspec.json.decode(note, type=Note)
        if read.gave_up or read.queued:
            self._freed.add(key)
        self.held[key] = _Held(holder, note, asyncio.get_running_loop().time() + ttl)

    def lets_several(self, key: str) -> bool:
        """True if several servers may generate the same: a call was lost, or a lease of the key ended before it was
        released, or its note did not ask others to wait."""
        return self.disturbed or key in self._freed


class Connection:
    """One server's view of a `SharedStore`. `delays` are the seconds that a call may take each way, `faults` is the
    probability that it fails, before or after it took effect. While `cut`, no call gets through."""

    def __init__(self, store: SharedStore, random: Random, *, delays: list[float], faults: float) -> None:
        self.leases: Connection | None = self
        self.durable = self
        self.cut = False
        self.dead = False
        self._store = store
        self._random = random
        self._delays = delays
        self._faults = faults

    async def get(self, key: str) -> Found | None:
        await self._send()
        value = self._store.values.get(key)
        await self._receive()
        return None if value is None else Found(value)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        await self._send()
        self._store.values[key] = value
        await self._receive()

    async def delete(self, key: str) -> bool:
        await self._send()
        existed = self._store.values.pop(key, None) is not None
        await self._receive()
        return existed

    async def clear(self) -> int:
        await self._send()
        count = len(self._store.values)
        self._store.values.clear()
        await self._receive()
        return count

    async def list_keys(self) -> AsyncIterator[str]:
        await self._send()
        for key in list(self._store.values):
            yield key

    async def stats(self) -> BackendStats:
        await self._send()
        return BackendStats(backend="shared", items=len(self._store.values))

    async def aclose(self) -> None:
        pass

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        await self._send()
        held = self._store.holder(key)
        if held is None or held.holder == holder:
            self._store.hold(key, holder, note, ttl)
        await self._receive()
        return None if held is None or held.holder == holder else held.note

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        await self._send()
        held = self._store.holder(key)
        ours = held is None or held.holder == holder
        if ours:
            self._store.hold(key, holder, note, ttl)
        await self._receive()
        return ours

    async def release(self, key: str, holder: str) -> None:
        await self._send()
        held = self._store.holder(key)
        if held is not None and held.holder == holder:
            del self._store.held[key]
        await self._receive()

    def heal(self) -> None:
        self.cut, self._faults, self._delays = False, 0, [0]

    async def _send(self) -> None:
        await self._travel()

    async def _receive(self) -> None:
        await self._travel()

    async def _travel(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()
        if self.cut or (self._faults and self._random.random() < self._faults):
            self._store.disturbed = True
            raise CacheUnavailable("<Connection>: the line is cut")
        delay = self._random.choice(self._delays)
        if delay > 0.1:
            self._store.disturbed = True
        await asyncio.sleep(delay)
        if self.dead:
            await asyncio.get_running_loop().create_future()


def memory(random: Random) -> MemoryBackend:
    """The faster tier of one server: small, so that it evicts."""
    return MemoryBackend(max_items=random.choice([1, 2, 8]), clock=lambda: asyncio.get_running_loop().time())
