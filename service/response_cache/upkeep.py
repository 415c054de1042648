import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from cache_backends import CacheBackend
from cache_backends.base import BackendStats, CacheUnavailable, ExtendedBackend
from service.errors import SHOWN_CHARS, AnswerGone, StoreUnavailable
from service.generation import Usage
from service.response_cache.questions import Questions
from service.response_cache.record import AnswerRecord
from service.response_cache.statistics import KeyHits
from service.response_cache.store import ResponseStore
from service.response_cache.stored import Stored, read_answer

# A store with a million answers on a busy disk takes longer, and is too large for a page.
UPKEEP_SECONDS = 30.0
MOST_LISTED = 100_000


class ListedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`stored_at` is in Unix seconds, `bytes` the size in the store, `ttl` in seconds, None for ever. `hits` count
    since this server's start. `question` is empty below debug level 2."""

    key: str
    stored_at: float
    bytes: int
    ttl: float | None
    hits: int
    usage: Usage
    question: str = ""


class ListedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first."""

    store: BackendStats
    answers: list[ListedAnswer]
    complete: bool


class Upkeep:
    """Lists and empties a running server's store. Raises `StoreUnavailable` if the store fails or cannot do it."""

    def __init__(self, backend: CacheBackend, store: ResponseStore, hits: KeyHits, questions: Questions) -> None:
        self._backend = backend
        self._store = store
        self._hits = hits
        self._questions = questions

    async def list(self, most: int) -> ListedAnswers:
        if not isinstance(self._backend, ExtendedBackend):
            raise StoreUnavailable(f"The store cannot list its answers: {self._backend!r}.")
        async with _asking():
            await self._store.wait_for_writes()
            # Ordered stores list the most recently used last.
            keys: deque[str] = deque(maxlen=most)
            count = 0
            async for key in self._backend.list_keys():
                keys.append(key)
                count += 1
            answers = []
            for key in keys:
                stored = await read_answer(self._backend, key)
                if stored is not None:
                    answers.append(listed(stored, self._hits.of(key), self._questions.of(key)))
                await asyncio.sleep(0)  # a store in memory never waits, and requests must come first
            store = await self._backend.stats()
        answers.sort(key=lambda answer: answer.stored_at, reverse=True)
        return ListedAnswers(store=store, answers=answers, complete=count <= most)

    async def get(self, key: str) -> AnswerRecord:
        async with _asking():
            await self._store.wait_for_writes(key)
            stored = await read_answer(self._backend, key)
        if stored is None:
            raise AnswerGone(f"Under the key {key[:SHOWN_CHARS]!r} no answer of this version is stored.")
        return stored.record

    async def remove(self, key: str) -> None:
        """Raises `AnswerGone`."""
        async with _asking():
            await self._store.wait_for_writes(key)
            existed = await self._backend.delete(key)
        self._hits.forget(key)
        if not existed:
            raise AnswerGone(f"Under the key {key[:SHOWN_CHARS]!r} nothing is stored.")

    async def clear(self) -> int:
        """Returns the number of removed answers. A running generation is still stored."""
        async with _asking():
            await self._store.wait_for_writes()
            count = await self._backend.clear()
        self._hits.clear()
        return count


def listed(stored: Stored, hits: int = 0, question: str = "") -> ListedAnswer:
    return ListedAnswer(
        key=stored.key,
        stored_at=stored.record.stored_at,
        bytes=stored.size,
        ttl=stored.ttl,
        hits=hits,
        usage=stored.record.completion.usage,
        question=question,
    )


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(UPKEEP_SECONDS):
            yield
    except CacheUnavailable as error:
        raise StoreUnavailable(f"{error}. Try again when the store is back.") from None
    except TimeoutError:
        raise StoreUnavailable(f"The store took longer than {UPKEEP_SECONDS:g} seconds. Try again later.") from None
