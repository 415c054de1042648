import asyncio
import hashlib
import zlib
from logging import getLogger

from cache_backends import CacheBackend
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import TieredBackend

# A busy machine needs seconds to open a database. A document that is not written ends a conversation at a restart.
SECONDS = 10.0
# Records of answers have another first byte, so neither is taken for the other.
DOCUMENT_VERSION = b"\x81"
_CHECKSUM_BYTES = 4

log = getLogger(__name__)


class DocumentStore:
    """Named documents in the part of the response cache's store that outlives the server, which may be none. A document
    that cannot be read is missing."""

    def __init__(self, backend: CacheBackend, *, ttl_seconds: float) -> None:
        # In memory, documents would only push out answers.
        last = backend.last if isinstance(backend, TieredBackend) else backend
        self._backend = None if isinstance(last, MemoryBackend) else last
        self._ttl_seconds = ttl_seconds

    async def get(self, name: str) -> bytes | None:
        if self._backend is None:
            return None
        try:
            async with asyncio.timeout(SECONDS):
                found = await self._backend.get(_key(name))
        except Exception as exc:
            log.debug("%r: a document was not read: %r", self._backend, exc)
            return None
        return None if found is None else _unpack(name, found.value)

    async def put(self, name: str, document: bytes) -> None:
        if self._backend is None:
            return
        try:
            async with asyncio.timeout(SECONDS):
                await self._backend.set(_key(name), _pack(name, document), ttl=self._ttl_seconds)
        except Exception as exc:
            log.debug("%r: a document was not written: %r", self._backend, exc)

    async def remove(self, name: str) -> bool:
        """True if there was a document."""
        if self._backend is None:
            return False
        try:
            async with asyncio.timeout(SECONDS):
                return await self._backend.delete(_key(name))
        except Exception as exc:
            log.warning("%r: a document was not removed: %r", self._backend, exc)
            return False


def _key(name: str) -> str:
    return hashlib.sha256(DOCUMENT_VERSION + name.encode()).hexdigest()


def _pack(name: str, document: bytes) -> bytes:
    return DOCUMENT_VERSION + _checksum(name, document) + document


def _unpack(name: str, value: bytes) -> bytes | None:
    start = len(DOCUMENT_VERSION) + _CHECKSUM_BYTES
    document = value[start:]
    return document if value[:start] == DOCUMENT_VERSION + _checksum(name, document) else None


def _checksum(name: str, document: bytes) -> bytes:
    """Includes the name: a damaged index in a database may lead to an intact row of another key."""
    return zlib.crc32(document, zlib.crc32(name.encode())).to_bytes(_CHECKSUM_BYTES, "big")
