"""Whatever the store does, every answer is right. A request never learns of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from cache_backends import BackendStats, CacheUnavailable
from cache_backends.base import Found
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import TieredBackend
from service.executor.scripted import ScriptedExecutor
from service.generation import Completion, GenerationRequest
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.record import RECORD_VERSION, AnswerRecord, encode_record
from service.response_cache.statistics import CacheCounters
from service.response_cache.store import ResponseStore
from tests.patience import PATIENCE_SECONDS
from tests.response_cache.answers import Numbered, ask, settings, text

Method = Literal["get", "set", "stats", "aclose"]
METHODS: tuple[Method, ...] = ("get", "set", "stats", "aclose")
CONVERSATION = ["one", "two", "one", "three", "two", "one", "four", "four"]


class FaultyBackend(MemoryBackend):
    """Does `fault` at the `k`th call of one method, and from then on at every one when it `lasts`."""

    def __init__(self, method: Method, k: int, fault: Exception | None, *, lasts: bool = False) -> None:
        super().__init__()
        self._method, self._left, self._fault, self._lasts = method, k, fault, lasts

    async def _maybe_fail(self, method: Method) -> None:
        if method != self._method:
            return
        self._left -= 1
        if self._left == 0 or (self._left < 0 and self._lasts):
            if self._fault is None:
                await asyncio.Event().wait()
            else:
                raise self._fault

    async def get(self, key: str) -> Found | None:
        await self._maybe_fail("get")
        return await super().get(key)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        await self._maybe_fail("set")
        await super().set(key, value, ttl=ttl)

    async def stats(self) -> BackendStats:
        await self._maybe_fail("stats")
        return await super().stats()

    async def aclose(self) -> None:
        await self._maybe_fail("aclose")
        await super().aclose()


async def stored_text(store: ResponseStore, key: str, max_age: float | None = None) -> Completion | None:
    record = await store.get(key, max_age)
    return None if record is None else record.completion


FAULTS = [CacheUnavailable("down"), RuntimeError("a defect"), TimeoutError("a socket's")]


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("method", METHODS)
async def test_a_fault_at_each_call_leaves_every_answer_right(method: Method, fault: Exception, lasts: bool) -> None:
    for k in range(1, len(CONVERSATION) + 2):
        executor = CachingExecutor(ScriptedExecutor(), FaultyBackend(method, k, fault, lasts=lasts), settings())
        await executor.start()
        for content in CONVERSATION:
            completion = await (await executor.submit(ask(content))).completion()
            assert completion.choices[0].text == content
            await executor.statistics()
        statistics = await executor.statistics()
        assert statistics.hits + statistics.misses == len(CONVERSATION)
        await executor.aclose()


async def test_a_failed_write_is_not_said_to_be_stored() -> None:
    backend = FaultyBackend("set", 1, CacheUnavailable("down"), lasts=True)
    executor = CachingExecutor(ScriptedExecutor(), backend, settings())
    answer = await executor.submit(ask())
    await answer.completion()
    assert not answer.stored
    second = await executor.submit(ask("else"))
    assert not second.stored  # what is to be expected after a failure, also before the end
    await second.completion()
    assert executor.counters.store_failures == 2
    await executor.aclose()


async def test_failures_of_one_tier_are_counted_though_the_other_answers() -> None:
    dead = FaultyBackend("get", 1, CacheUnavailable("down"), lasts=True)
    executor = CachingExecutor(ScriptedExecutor(), TieredBackend([MemoryBackend(), dead]), settings())
    for _ in range(2):
        await (await executor.submit(ask())).completion()
    # The figures of a store that answers late are those of the call before.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (statistics := await executor.statistics()).store_failures == 0:
            pass
    assert (statistics.hits, statistics.store_failures) == (1, 1)
    await executor.aclose()


async def test_an_answer_too_large_for_one_tier_is_counted() -> None:
    executor = CachingExecutor(
        ScriptedExecutor(), TieredBackend([MemoryBackend(), MemoryBackend(max_bytes=9)]), settings()
    )
    await (await executor.submit(ask())).completion()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (statistics := await executor.statistics()).shed == 0:
            pass
    assert (statistics.stored, statistics.shed, statistics.store_failures) == (1, 1, 0)
    await executor.aclose()


async def test_an_answer_too_large_for_the_store_is_not_stored() -> None:
    executor = CachingExecutor(ScriptedExecutor(), MemoryBackend(max_bytes=9), settings())
    answer = await executor.submit(ask())
    await answer.completion()
    assert not answer.stored
    assert (await executor.statistics()).stored == 0
    await executor.aclose()


async def test_an_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    backend = FaultyBackend("get", 1, CacheUnavailable("down"), lasts=True)
    store = ResponseStore(backend, CacheCounters())
    for _ in range(5):
        assert await store.get("k") is None
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= 30]
    assert warning.endswith(": read failed: CacheUnavailable('down')")
    await store.aclose()


async def test_a_lookup_that_hangs_is_a_miss_and_the_next_does_not_wait() -> None:
    backend = FaultyBackend("get", 1, None, lasts=True)
    store = ResponseStore(backend, CacheCounters(), lookup_seconds=0.01)
    assert await store.get("k") is None
    with pytest.raises(StopIteration):
        store.get("k").send(None)  # answered in the same turn: the backend was not asked
    await store.aclose()


async def test_count_items_does_not_wait_for_a_backend_that_hangs() -> None:
    backend = FaultyBackend("stats", 2, None, lasts=True)
    store = ResponseStore(backend, CacheCounters())
    await backend.set("k", b"v")
    assert await store.count_items() == 1
    await backend.set("l", b"v")
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [await store.count_items() for _ in range(3)] == [1] * 3


async def test_what_is_written_anew_meanwhile_is_written_last() -> None:
    gate = asyncio.Event()

    class Gated(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            await gate.wait()
            await super().set(key, value, ttl=ttl)

    backend = Gated()
    store = ResponseStore(backend, CacheCounters())
    writes = [store.put("k", text(content)) for content in ("old", "newer", "newest")]
    await asyncio.sleep(0)
    writes.append(store.put("k", text("last")))
    assert await stored_text(store, "k") == text("last")
    gate.set()
    for write in writes:
        assert write is not None
        await write.wait(PATIENCE_SECONDS)
        assert write.stored
    assert await stored_text(store, "k") == text("last")
    assert (await backend.stats()).items == 1
    await store.aclose()


async def test_what_is_written_anew_counts_once() -> None:
    size = len(encode_record(AnswerRecord("k", 0.0, text())))
    store = ResponseStore(MemoryBackend(), CacheCounters(), max_unwritten_bytes=3 * size)
    assert all(store.put(key, text()) is not None for key in ("k", "k", "l"))
    await store.aclose()


async def test_what_is_unwritten_is_bounded() -> None:
    backend = FaultyBackend("set", 1, None, lasts=True)
    counters = CacheCounters()
    store = ResponseStore(backend, counters, max_unwritten_bytes=300)
    assert store.put("a", text("x" * 100)) is not None
    assert store.put("b", text("x" * 100)) is None
    assert (counters.shed, counters.stored, store.writes) == (1, 0, False)
    assert await stored_text(store, "a") == text("x" * 100)
    assert await store.get("b") is None


@pytest.mark.parametrize(
    "value",
    [
        *map(Found, (b"", b"garbage", bytes([RECORD_VERSION]) + b"\0\0\0\0", b"\0" * 100)),
        *(b"no ttl", "text", 3, Found(memoryview(b"x"))),  # type: ignore[arg-type]
    ],
    ids=["nothing", "no record", "a wrong checksum", "another version", "bytes", "a text", "a number", "a view"],
)
async def test_garbage_in_the_store_is_a_miss(value: object) -> None:
    class Garbage(MemoryBackend):
        async def get(self, key: str) -> Found | None:
            return value  # type: ignore[return-value]

    executor = CachingExecutor(ScriptedExecutor(), Garbage(), settings())
    for _ in range(2):
        answer = await executor.submit(ask())
        assert answer.outcome == "miss"
        assert (await answer.completion()).choices[0].text == "one two three"
    await executor.aclose()


async def test_the_age_of_a_record_is_by_the_clock_of_the_store() -> None:
    now = 1000.0
    store = ResponseStore(MemoryBackend(), CacheCounters(), now=lambda: now)
    store.put("k", text())
    now = 999.0
    assert await stored_text(store, "k", max_age=0) == text()
    now = 1010.0
    assert await stored_text(store, "k", max_age=10) == text()
    assert await store.get("k", max_age=9) is None
    assert await stored_text(store, "k") == text()
    await store.aclose()


async def test_a_lookup_during_which_the_generation_ends_does_not_generate_again() -> None:
    """The store is asked before the answer is written and replies after: the generation in flight is remembered."""
    asked, reply = asyncio.Event(), asyncio.Event()

    class SlowSecondLookup(MemoryBackend):
        lookups = 0

        async def get(self, key: str) -> Found | None:
            self.lookups += 1
            if self.lookups == 2:
                asked.set()
                await reply.wait()
                return None
            return await super().get(key)

    scripted = Numbered()
    scripted.gate.clear()
    inner = ScriptedExecutor(scripted.script)
    executor = CachingExecutor(inner, SlowSecondLookup(), settings())

    async def submit(request: GenerationRequest) -> str:
        return (await (await executor.submit(request)).completion()).choices[0].text

    first = await executor.submit(ask())
    second = asyncio.create_task(submit(ask()))
    await asked.wait()
    scripted.gate.set()
    await first.completion()
    reply.set()
    assert await second == "answer 1"
    assert len(inner.submitted) == 1
    await executor.aclose()


async def test_an_answer_that_cannot_be_encoded_is_given_all_the_same() -> None:
    async def half_a_character(request: GenerationRequest) -> AsyncIterator[str]:
        yield "\ud83d"

    executor = CachingExecutor(ScriptedExecutor(half_a_character), MemoryBackend(), settings())
    for _ in range(2):
        answer = await executor.submit(ask())
        assert (await answer.completion()).choices[0].text == "\ud83d"
        assert (answer.outcome, answer.stored) == ("miss", False)
    await executor.aclose()


async def test_closing_waits_for_a_write_that_goes_on() -> None:
    gate = asyncio.Event()
    kept: dict[str, bytes] = {}

    class Gated(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            await gate.wait()
            kept[key] = value

    executor = CachingExecutor(ScriptedExecutor(), Gated(), settings())
    await (await executor.submit(ask())).completion()
    closing = asyncio.create_task(executor.aclose())
    await asyncio.sleep(0)
    assert not kept
    gate.set()
    await closing
    assert len(kept) == 1


async def test_what_was_written_waits_no_more() -> None:
    size = len(encode_record(AnswerRecord("k", 0.0, text())))
    counters = CacheCounters()
    store = ResponseStore(MemoryBackend(), counters, max_unwritten_bytes=size + size // 2)
    for _ in range(5):
        assert store.put("k", text()) is not None
        assert await store.written("k")
    assert counters.shed == 0
    assert counters.stored == 5
