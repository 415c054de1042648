"""The interface of every store, and what it may raise. Nothing here knows of requests or models."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import msgspec


class CacheUnavailable(Exception):
    """The store cannot answer now. The message says which store and why; the caller goes on without it."""


class InvalidBackendUrl(ValueError):
    """The URL does not describe a store. The message says what was expected and what was found."""


class BackendStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `items` and `bytes` are None where the store cannot tell cheaply; limits are None where there are
    none. `tiers` are the stores below, fastest first."""

    backend: str
    items: int | None = None
    bytes: int | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    evictions: int = 0
    errors: int = 0
    tiers: tuple["BackendStats", ...] = ()


class CacheBackend(Protocol):
    """Byte store for finished completions. Values are opaque. Every method may raise `CacheUnavailable`."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none, it has expired, or it was damaged."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Stores, replacing. `ttl` is in seconds; None is for ever. A value larger than the store is not stored."""
        ...

    async def delete(self, key: str) -> bool:
        """Whether there was one."""
        ...

    async def clear(self) -> int:
        """Removes everything that is ours, and returns how many there were."""
        ...

    async def stats(self) -> BackendStats: ...
    async def aclose(self) -> None:
        """Frees what is held. Calling it twice is allowed; nothing else may be called after it."""
        ...


@runtime_checkable
class ListsKeys(Protocol):
    """A store that can say what it holds, as all of ours can."""

    def list_keys(self) -> AsyncIterator[str]:
        """Every key with a value, each once, in no order. What comes or goes meanwhile may be missing."""
        ...


class Leases(Protocol):
    """Who of several processes is at work on a key. A lease has one holder, a note of its for those who wait, and ends
    by itself `ttl` seconds after it was last taken or kept. Every method may raise `CacheUnavailable`."""

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        """Takes the lease if nobody has it; else returns the note of whoever has it."""
        ...

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        """Holds it for longer, with another note; takes it again if it has ended and nobody has it. False: another
        holder has it now."""
        ...

    async def release(self, key: str, holder: str) -> None:
        """Gives it back, if it is still this holder's. By then, whatever this process has set under the key is there
        for the others to get."""
        ...


@runtime_checkable
class HasLeases(Protocol):
    """A store that other processes may share. Not every store is: memory is not."""

    @property
    def leases(self) -> Leases | None:
        """None: it is shared with nobody."""
        ...
