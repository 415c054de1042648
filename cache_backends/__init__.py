"""Byte stores for finished answers, chosen by URL. Imports nothing of `service`.

- `base`: the interface of a store, its optional part, and the errors
- `urls`: opens a store from its URL, schemes of other packages included
- `memory`, `disk` (its blocking half is `disk_store`), `redis` (with `redis_leases`): the stores
- `tiered`: several stores as one
- `sizes`: parses sizes such as `256MiB`
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
