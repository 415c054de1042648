"""The interface of every store, and its errors."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import msgspec


class CacheUnavailable(Exception):
    """The store cannot answer now. The message names the store and the reason."""


class ValueTooLarge(CacheUnavailable):
    """The store works, and the value does not fit into it."""


class InvalidBackendUrl(ValueError):
    """The URL does not describe a store."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """`ttl` is the seconds that the value has left, None for ever: a faster tier keeps it no longer."""

    value: bytes
    ttl: float | None = None


class BackendStats(msgspec.Struct, frozen=True, kw_only=True):
    """`items` and `bytes` are None if the store cannot count them cheaply."""

    backend: str
    items: int | None = None
    bytes: int | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    evictions: int = 0
    errors: int = 0
    tiers: tuple["BackendStats", ...] = ()


class CacheBackend(Protocol):
    """Byte store; every method may raise `CacheUnavailable`."""

    async def get(self, key: str) -> Found | None:
        """None also for a value that has expired or was damaged."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Returns when the value is stored, in place of an earlier one. `ttl` is in seconds, None for ever.

        Raises `ValueTooLarge` if the value can never fit; an earlier value is gone then.
        """
        ...

    async def delete(self, key: str) -> bool:
        """True if there was a value."""
        ...

    async def clear(self) -> int:
        """Returns how many values there were."""
        ...

    async def stats(self) -> BackendStats: ...
    async def aclose(self) -> None:
        """May be called twice."""
        ...


class Leases(Protocol):
    """Locks between processes. A lease ends `ttl` seconds after it was last taken or kept; its holder's `note` is for
    those who wait. Every method may raise `CacheUnavailable`."""

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        """None if the lease is taken now; otherwise its holder's note."""
        ...

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        """Prolongs the lease, or takes it again if it has ended. False: another holder has it."""
        ...

    async def release(self, key: str, holder: str) -> None:
        """Does nothing if another holder has the lease."""
        ...


@runtime_checkable
class ExtendedBackend(CacheBackend, Protocol):
    """The optional side of a store: a store of another package may do without."""

    @property
    def leases(self) -> Leases | None:
        """None if servers that share the store cannot share generations."""
        ...

    def list_keys(self) -> AsyncIterator[str]:
        """Every key with a value, once. Keys that come or go meanwhile may be missing."""
        ...


def leases_of(backend: CacheBackend) -> Leases | None:
    return backend.leases if isinstance(backend, ExtendedBackend) else None
