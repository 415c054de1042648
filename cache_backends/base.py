"""The interface of every store, and what it may raise. Nothing here knows of requests or models."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import msgspec


class CacheUnavailable(Exception):
    """The store cannot answer now, and the caller goes on without it. The message names the store and the reason."""


class ValueTooLarge(CacheUnavailable):
    """The store works, and the value does not fit into it."""


class InvalidBackendUrl(ValueError):
    """The URL does not describe a store. The message holds what was expected and what was found."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """A value and the seconds that it has left; None is for ever. A faster tier keeps the value no longer than that."""

    value: bytes
    ttl: float | None = None


class BackendStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `items` and `bytes` are None if the store cannot count them cheaply; limits are None if there are
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

    async def get(self, key: str) -> Found | None:
        """None if there is no value, it has expired, or it was damaged."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Replaces an earlier value. Returns when the value is stored. `ttl` is in seconds; None is for ever.

        Raises `ValueTooLarge` if the value can never fit; an earlier value is gone then.
        """
        ...

    async def delete(self, key: str) -> bool:
        """True if there was a value."""
        ...

    async def clear(self) -> int:
        """Removes all values that are ours, and returns how many there were."""
        ...

    async def stats(self) -> BackendStats: ...
    async def aclose(self) -> None:
        """May be called twice. Nothing else may be called after it."""
        ...


class Leases(Protocol):
    """Locks between processes, by key. A lease has one holder and a note for those who wait, and ends by itself `ttl`
    seconds after it was last taken or kept. Every method may raise `CacheUnavailable`."""

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        """Takes the lease and returns None if nobody has it; otherwise returns its holder's note."""
        ...

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        """Prolongs the lease and replaces its note; takes it again if it has ended. False: another holder has it."""
        ...

    async def release(self, key: str, holder: str) -> None:
        """Ends the lease if this holder still has it."""
        ...


@runtime_checkable
class ExtendedBackend(CacheBackend, Protocol):
    """The optional side of a store. All of ours have it; a store of another package may do without."""

    @property
    def leases(self) -> Leases | None:
        """None if no other process can see what this one stores, or may rely on it."""
        ...

    def list_keys(self) -> AsyncIterator[str]:
        """Every key with a value, each once, in no order. Keys that come or go meanwhile may be missing."""
        ...


def leases_of(backend: CacheBackend) -> Leases | None:
    return backend.leases if isinstance(backend, ExtendedBackend) else None
