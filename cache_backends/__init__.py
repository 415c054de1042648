"""Stores for finished answers: bytes under a key, chosen by URL.

`base` holds the interface, its optional side and the errors; `urls` opens a store from its URL and finds the schemes of
other packages. `memory`, `disk` (with its blocking half `disk_store`) and `redis` (with `redis_leases`) are the stores;
`tiered` makes several into one.
"""

from cache_backends.base import BackendStats, CacheBackend, CacheUnavailable, Found, InvalidBackendUrl, ValueTooLarge
from cache_backends.urls import BackendUrl, open_backend

__all__ = [
    "BackendStats",
    "BackendUrl",
    "CacheBackend",
    "CacheUnavailable",
    "Found",
    "InvalidBackendUrl",
    "ValueTooLarge",
    "open_backend",
]
