from collections.abc import AsyncIterator

import msgspec

from cache_backends import CacheBackend
from cache_backends.base import ExtendedBackend
from service.response_cache.record import AnswerRecord, decode_record


class CannotList(Exception): ...


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """`size` is in bytes. `ttl` is in seconds, None for ever."""

    key: str
    size: int
    ttl: float | None
    record: AnswerRecord


async def stored_answers(store: CacheBackend) -> AsyncIterator[Stored]:
    """Skips damaged answers and those of other versions. Raises CannotList and CacheUnavailable."""
    if not isinstance(store, ExtendedBackend):
        raise CannotList(f"{store!r} cannot list its keys.")
    async for key in store.list_keys():
        stored = await read_answer(store, key)
        if stored is not None:
            yield stored


async def read_answer(store: CacheBackend, key: str) -> Stored | None:
    """Raises CacheUnavailable."""
    found = await store.get(key)
    record = None if found is None else decode_record(found.value, key)
    if found is None or record is None:
        return None
    return Stored(key=key, size=len(found.value), ttl=found.ttl, record=record)
