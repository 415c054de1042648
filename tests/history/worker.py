"""`python -m tests.history.worker URL NUMBER HISTORY OVER [stealing]`: clients that ask as those of other workers until
there is a file OVER. With `stealing`, the worker's leases are broken."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from cache_backends.redis import RedisBackend
from cache_backends.redis_leases import RedisLeases
from service.errors import ServiceError
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest, Message
from service.response_cache.base import StoreTimes
from service.response_cache.caching_executor import CachingExecutor
from service.settings import Settings
from tests.history.promises import expected_answer
from tests.history.records import Asked, HistoryWriter, LeaseCall, Silence
from tests.no_home import NO_HOME
from tests.patience import PATIENCE_SECONDS

LEASE_SECONDS = 0.3
ROUND_SECONDS = 1.0
QUESTIONS = 8
CLIENTS = 4
SLOWEST_GENERATION_SECONDS = 0.5
LOOK_SECONDS = 0.02


class RecordedLeases:
    def __init__(self, inner: RedisLeases, history: HistoryWriter) -> None:
        self._inner = inner
        self._history = history

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        called = time.monotonic()
        theirs = await self._inner.acquire(key, holder, note, ttl=ttl)
        self._add("acquire", key, holder, called, ttl, held=theirs is None)
        return theirs

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        called = time.monotonic()
        held = await self._inner.keep(key, holder, note, ttl=ttl)
        self._add("keep", key, holder, called, ttl, held=held)
        return held

    async def release(self, key: str, holder: str) -> None:
        # Before the call: it may reach Redis although its reply does not come back.
        self._add("release", key, holder, time.monotonic(), 0.0, held=False)
        await self._inner.release(key, holder)

    def _add(self, what: str, key: str, holder: str, called: float, ttl: float, *, held: bool) -> None:
        returned = time.monotonic()
        call = LeaseCall(what=what, key=key, holder=holder, called=called, returned=returned, ttl=ttl, held=held)
        self._history.add(call)


class StealingLeases(RedisLeases):
    """Its `keep` takes the lease from another holder, which the check of a history must find."""

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        await self._run("redis.call('UNLINK', KEYS[1])", key)
        return await super().keep(key, holder, note, ttl=ttl)


class RecordedBackend(RedisBackend):
    def __init__(self, url: str, history: HistoryWriter, *, stealing: bool) -> None:
        super().__init__(url, ttl=60)
        leases = StealingLeases(self.leases._prefix, self.leases._call) if stealing else self.leases
        self.leases = RecordedLeases(leases, history)


async def script(request: GenerationRequest) -> AsyncIterator[str]:
    words = expected_answer(request.messages[0].content).split(" ")
    for word in words:
        await asyncio.sleep(random.uniform(0, SLOWEST_GENERATION_SECONDS / len(words)))
        yield word if word == "the" else f" {word}"


async def client(caching: CachingExecutor, worker: int, history: HistoryWriter, over: Path) -> None:
    while not over.exists():  # noqa: ASYNC240 - it takes microseconds
        called = time.monotonic()
        question = f"{random.randrange(QUESTIONS)} of round {called // ROUND_SECONDS:.0f}"
        request = GenerationRequest(messages=(Message(role="user", content=question),))
        outcome, text = "failed", None
        try:
            answer = await caching.submit(request)
            outcome = answer.outcome
            text = (await answer.completion()).choices[0].text
        except ServiceError:
            pass
        returned = time.monotonic()
        history.add(
            Asked(worker=worker, question=question, called=called, returned=returned, outcome=outcome, text=text)
        )
        await asyncio.sleep(random.uniform(0, 0.02))


async def record_silence(worker: int, history: HistoryWriter, over: Path) -> None:
    while not over.exists():  # noqa: ASYNC240
        due = time.monotonic() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        if (now := time.monotonic()) > due + LOOK_SECONDS:
            history.add(Silence(worker, due, now))


async def main(url: str, worker: int, path: Path, over: Path, *, stealing: bool) -> None:
    history = HistoryWriter(path)
    backend = RecordedBackend(url, history, stealing=stealing)
    settings = Settings(home=NO_HOME, max_concurrency=2, request_timeout_seconds=PATIENCE_SECONDS)
    caching = CachingExecutor(
        ScriptedExecutor(script, concurrency=2), backend, settings, times=StoreTimes(lease=LEASE_SECONDS)
    )
    clients = [client(caching, worker, history, over) for _ in range(CLIENTS)]
    await asyncio.gather(record_silence(worker, history, over), *clients)
    await caching.aclose()


if __name__ == "__main__":
    url, number, path, over, *broken = sys.argv[1:]
    asyncio.run(main(url, int(number), Path(path), Path(over), stealing=bool(broken)))
