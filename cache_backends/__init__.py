"""Stores for finished answers: bytes under a key, chosen by URL. Imports nothing of `service`.

base.py         the interface `CacheBackend`, its optional side, and the errors
urls.py         `open_backend`: from URLs to a store, and schemes of other packages
memory.py       `memory://`, an LRU in the process
disk.py         `disk://`, threads and recovery; disk_store.py is its blocking half on diskcache
redis.py        `redis://`, timeouts and circuit breaker; redis_leases.py holds its leases
tiered.py       several stores as one, fastest first
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
