from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import msgspec


class CacheUnavailable(Exception):
    """The message names the store and the reason."""


class ValueTooLarge(CacheUnavailable): ...


class InvalidBackendUrl(ValueError):
    pass


class Found(msgspec.Struct, frozen=True, gc=False):
    """`ttl` is the remaining time in seconds, None for ever. Faster tiers keep the value no longer."""

    value: bytes
    ttl: float | None = None


class BackendStats(msgspec.Struct, frozen=True, kw_only=True):
    """`items` and `bytes` are None if counting them is expensive."""

    backend: str
    items: int | None = None
    bytes: int | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    evictions: int = 0
    errors: int = 0
    shed: int = 0  # values that were too large for a tier
    tiers: tuple["BackendStats", ...] = ()


class CacheBackend(Protocol):
    """Every method may raise `CacheUnavailable`."""

    async def get(self, key: str) -> Found | None:
        """None for an expired or damaged value too."""
        ...

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Returns when the value is stored. `ttl` is in seconds, None for ever.

        Raises `ValueTooLarge` if the value can never fit; an earlier value is removed then.
        """
        ...

    async def delete(self, key: str) -> bool: ...
    async def clear(self) -> int: ...
    async def stats(self) -> BackendStats: ...
    async def aclose(self) -> None:
        """May be called twice."""
        ...


class Leases(Protocol):
    """Locks between processes. A lease ends `ttl` seconds after its last `acquire` or `keep`. Others can read the
    holder's `note`. Every method may raise `CacheUnavailable`."""

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        """Returns None if the caller now has the lease, else the holder's note."""
        ...

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        """Prolongs the lease, or takes it again if it has ended. False if another holder has it."""
        ...

    async def release(self, key: str, holder: str) -> None:
        """Does nothing if another holder has the lease."""
        ...


@runtime_checkable
class ExtendedBackend(CacheBackend, Protocol):
    @property
    def leases(self) -> Leases | None:
        """None if servers that share the store cannot share generations."""
        ...

    @property
    def durable(self) -> CacheBackend | None:
        """The part that keeps values longer than this process runs."""
        ...

    def list_keys(self) -> AsyncIterator[str]:
        """Yields every key once. Keys that come or go meanwhile may be missing."""
        ...


def leases_of(backend: CacheBackend) -> Leases | None:
    return backend.leases if isinstance(backend, ExtendedBackend) else None


def durable_part(backend: CacheBackend) -> CacheBackend | None:
    """A store that does not answer counts as durable."""
    return backend.durable if isinstance(backend, ExtendedBackend) else backend
