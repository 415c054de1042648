"""Stores for finished answers: bytes under a key, chosen by URL. Imports nothing of `service`."""

from cache_backends.base import BackendStats, CacheBackend, CacheUnavailable, InvalidBackendUrl
from cache_backends.urls import BackendUrl, open_backend

__all__ = ["BackendStats", "BackendUrl", "CacheBackend", "CacheUnavailable", "InvalidBackendUrl", "open_backend"]
