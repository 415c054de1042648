"""Listing, reading and removing answers of a running server's store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cache_backends import CacheBackend, CacheUnavailable
from cache_backends.base import Found
from cache_backends.memory import MemoryBackend
from service.errors import AnswerGone, StoreUnavailable
from service.response_cache.questions import Questions
from service.response_cache.record import AnswerRecord, encode_record
from service.response_cache.statistics import CacheCounters, KeyHits
from service.response_cache.store import ResponseStore
from service.response_cache.stored import Stored
from service.response_cache.upkeep import ListedAnswer, Upkeep, listed
from tests.cache_backends.smallest import SmallestStore
from tests.response_cache.answers import text


class Gated(MemoryBackend):
    """A write of a key of `closed` waits until `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.closed = {"slow"}

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        if key in self.closed:
            await self.gate.wait()
        await super().set(key, value, ttl=ttl)


class Failing(MemoryBackend):
    """Every call but `aclose` raises."""

    async def get(self, key: str) -> Found | None:
        raise CacheUnavailable("it is away")

    async def delete(self, key: str) -> bool:
        raise CacheUnavailable("it is away")

    async def clear(self) -> int:
        raise CacheUnavailable("it is away")

    async def list_keys(self) -> AsyncIterator[str]:
        raise CacheUnavailable("it is away")
        yield ""


class Bench:
    def __init__(self, backend: CacheBackend | None = None) -> None:
        self.gated = Gated()
        self.now = 100.0
        self.hits = KeyHits()
        self.backend = backend or self.gated
        self.store = ResponseStore(self.backend, CacheCounters(), now=lambda: self.now)
        self.upkeep = Upkeep(self.backend, self.store, self.hits, Questions(kept=False))

    async def waits(self, work: Awaitable[object]) -> object:
        """Returns the result of work that has to wait for the slow write."""
        task = asyncio.ensure_future(work)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        self.gated.gate.set()
        return await task


async def test_answers_are_listed_newest_first_with_their_hits() -> None:
    bench = Bench()
    for key in ("a", "b", "c"):
        bench.now += 1
        bench.store.put(key, text(key))
    bench.hits.count("b")
    listed = await bench.upkeep.list(10)
    assert [(answer.key, answer.stored_at, answer.hits) for answer in listed.answers] == [
        ("c", 103.0, 0),
        ("b", 102.0, 1),
        ("a", 101.0, 0),
    ]
    assert listed.answers[2].bytes == len(encode_record(AnswerRecord("a", 101.0, text("a"))))
    assert listed.answers[2].usage == text("a").usage
    assert (listed.complete, listed.store.items) == (True, 3)


@pytest.mark.parametrize(("most", "complete"), [(3, True), (2, False), (1, False)])
async def test_a_list_says_whether_it_is_complete(most: int, complete: bool) -> None:
    bench = Bench()
    for key in ("a", "b", "c"):
        bench.store.put(key, text(key))
    listed = await bench.upkeep.list(most)
    assert sorted(answer.key for answer in listed.answers) == ["a", "b", "c"][-most:]
    assert listed.complete == complete


def test_a_stored_answer_is_listed_with_its_time_to_live() -> None:
    stored = Stored(key="a", size=7, ttl=9.5, record=AnswerRecord("a", 5.0, text()))
    assert listed(stored) == ListedAnswer(key="a", stored_at=5.0, bytes=7, ttl=9.5, hits=0, usage=text().usage)
    assert listed(stored).question == ""


async def test_what_is_no_answer_is_not_listed() -> None:
    bench = Bench()
    await bench.backend.set("damaged", b"no record")
    bench.store.put("a", text())
    assert [answer.key for answer in (await bench.upkeep.list(10)).answers] == ["a"]


async def test_each_action_waits_for_answers_that_are_being_written() -> None:
    actions: list[Callable[[Bench], Awaitable[object]]] = [
        lambda bench: bench.upkeep.list(1),
        lambda bench: bench.upkeep.get("slow"),
        lambda bench: bench.upkeep.remove("slow"),
        lambda bench: bench.upkeep.clear(),
    ]
    found = []
    for action in actions:
        bench = Bench()
        bench.hits.count("slow")
        bench.store.put("slow", text())
        found.append(await bench.waits(action(bench)))
        assert bench.hits.of("slow") == (1 if action in actions[:2] else 0)
    listed, record, removed, count = found
    assert [answer.key for answer in listed.answers] == ["slow"]
    assert record.completion == text()
    assert (removed, count) == (None, 1)


async def test_one_answer_does_not_wait_for_the_write_of_another() -> None:
    bench = Bench()
    bench.store.put("slow", text())
    bench.store.put("a", text())
    assert (await bench.upkeep.get("a")).completion == text()
    await bench.upkeep.remove("a")
    bench.gated.gate.set()


@pytest.mark.parametrize("value", [None, b"no record"])
async def test_an_answer_that_is_gone_is_named(value: bytes | None) -> None:
    bench = Bench()
    key = "k" * 300
    if value is not None:
        await bench.backend.set(key, value)
    with pytest.raises(AnswerGone, match=r"'k{50,250}' no answer of this version"):
        await bench.upkeep.get(key)
    await bench.backend.delete(key)
    with pytest.raises(AnswerGone, match=r"'k{50,250}' nothing is stored"):
        await bench.upkeep.remove(key)


async def test_a_store_that_fails_is_reported() -> None:
    upkeep = Bench(Failing()).upkeep
    for action in (upkeep.list(1), upkeep.get("k"), upkeep.remove("k"), upkeep.clear()):
        with pytest.raises(StoreUnavailable, match=r"it is away\. Try again when the store is back"):
            await action


async def test_a_store_that_cannot_list_is_named() -> None:
    with pytest.raises(StoreUnavailable, match="cannot list its answers: <SmallestStore>"):
        await Bench(SmallestStore()).upkeep.list(1)
