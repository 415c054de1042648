import asyncio
import hashlib
import zlib
from collections.abc import Awaitable, Callable
from logging import DEBUG, WARNING, getLogger
from typing import TypeVar

from cache_backends import CacheBackend
from cache_backends.base import durable_part

# A busy machine needs seconds to open a database. A document that is not written ends a conversation at a restart.
SECONDS = 10.0
# Records of answers have another first byte, so neither is taken for the other.
DOCUMENT_VERSION = b"\x81"
_CHECKSUM_BYTES = 4

log = getLogger(__name__)

T = TypeVar("T")


class DocumentStore:
    """Named documents in the durable part of the response cache's store, which may be none. A document that cannot be
    read is missing."""

    def __init__(self, backend: CacheBackend, *, ttl_seconds: float) -> None:
        # In memory, documents would only push out answers.
        self._backend = durable_part(backend)
        self._ttl_seconds = ttl_seconds
        self._failing: set[str] = set()

    async def get(self, name: str) -> bytes | None:
        found = await self._ask("read", lambda backend: backend.get(_key(name)))
        return None if found is None else unpack(name, found.value)

    async def put(self, name: str, document: bytes) -> None:
        await self._ask("written", lambda backend: backend.set(_key(name), pack(name, document), ttl=self._ttl_seconds))

    async def remove(self, name: str) -> bool:
        """True if there was a document."""
        return bool(await self._ask("removed", lambda backend: backend.delete(_key(name))))

    async def _ask(self, work: str, call: Callable[[CacheBackend], Awaitable[T]]) -> T | None:
        if self._backend is None:
            return None
        try:
            async with asyncio.timeout(SECONDS):
                result = await call(self._backend)
        except Exception as exc:
            # One warning for each outage.
            level = DEBUG if work in self._failing else WARNING
            log.log(level, "%r: a document was not %s: %r", self._backend, work, exc)
            self._failing.add(work)
            return None
        self._failing.discard(work)
        return result


def _key(name: str) -> str:
    return hashlib.sha256(DOCUMENT_VERSION + name.encode()).hexdigest()


def pack(name: str, document: bytes) -> bytes:
    return DOCUMENT_VERSION + _checksum(name, document) + document


def unpack(name: str, value: bytes) -> bytes | None:
    start = len(DOCUMENT_VERSION) + _CHECKSUM_BYTES
    document = value[start:]
    return document if value[:start] == DOCUMENT_VERSION + _checksum(name, document) else None


def _checksum(name: str, document: bytes) -> bytes:
    """Includes the name: a damaged index in a database may lead to an intact row of another key."""
    return zlib.crc32(document, zlib.crc32(name.encode())).to_bytes(_CHECKSUM_BYTES, "big")
