"""How long the response cache waits for a store that hangs, on a simulated clock."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from cache_backends import BackendStats
from cache_backends.base import Found
from cache_backends.memory import MemoryBackend
from service.events import Event
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from service.response_cache.base import STORE_TIMES
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.record import AnswerRecord, encode_record
from service.response_cache.single_flight import WRITE_WAIT_SECONDS, Flight, Flights
from service.response_cache.statistics import CacheCounters
from service.response_cache.store import (
    CLOSE_SECONDS,
    COUNT_SECONDS,
    DRAIN_SECONDS,
    PAUSE_SECONDS,
    WRITE_SECONDS,
    ResponseStore,
)
from tests.response_cache.answers import Numbered, ask, settings, text
from tests.simulation.loop import now, simulate


class Hanging(MemoryBackend):
    """The named methods never return. `calls` holds when each method was called."""

    def __init__(self, *methods: str) -> None:
        super().__init__(clock=now)
        self.methods = set(methods)
        self.calls: list[tuple[str, float]] = []

    async def _hang(self, method: str) -> None:
        self.calls.append((method, now()))
        if method in self.methods:
            await asyncio.get_running_loop().create_future()

    async def get(self, key: str) -> Found | None:
        await self._hang("get")
        return await super().get(key)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        await self._hang("set")
        await super().set(key, value, ttl=ttl)

    async def stats(self) -> BackendStats:
        await self._hang("stats")
        return await super().stats()

    async def aclose(self) -> None:
        await self._hang("aclose")


def store(backend: MemoryBackend, **options: Any) -> ResponseStore:
    return ResponseStore(backend, CacheCounters(), now=now, **options)


def test_a_store_that_hangs_is_not_asked_for_a_while() -> None:
    async def main() -> None:
        backend = Hanging("get")
        asked = store(backend)
        assert await asked.get("k") is None
        assert now() == STORE_TIMES.lookup
        await asyncio.sleep(PAUSE_SECONDS - 0.1)
        assert await asked.get("k") is None
        assert now() == STORE_TIMES.lookup + PAUSE_SECONDS - 0.1
        await asyncio.sleep(0.2)
        backend.methods.clear()
        assert await asked.get("k") is None
        assert [when for _, when in backend.calls] == pytest.approx([0.0, STORE_TIMES.lookup + PAUSE_SECONDS + 0.1])

    simulate(main())


def test_a_write_that_hangs_is_given_up() -> None:
    async def main() -> None:
        backend = Hanging("set")
        written = store(backend, max_unwritten_bytes=300)
        pending = written.put("k", text())
        assert pending is not None
        assert not pending.stored
        assert not await written.written("k")
        assert (now(), pending.stored) == (WRITE_SECONDS, False)
        assert not written.writes
        backend.methods.clear()
        assert written.put("k", text()) is not None
        assert await written.written("k")
        assert written.writes

    simulate(main())


def test_items_are_counted_in_the_background_once_at_a_time() -> None:
    async def main() -> None:
        backend = Hanging("stats")
        counted = store(backend)
        await backend.set("k", b"v")
        assert await counted.count_items() == 0
        assert now() == pytest.approx(COUNT_SECONDS)
        assert await counted.count_items() == 0
        assert backend.calls.count(("stats", 0.0)) == len([c for c in backend.calls if c[0] == "stats"]) == 1
        await asyncio.sleep(WRITE_SECONDS)
        backend.methods.clear()
        assert await counted.count_items() == 1

    simulate(main())


def test_closing_waits_for_writes_and_for_the_backend_and_then_goes_on() -> None:
    async def main() -> None:
        backend = Hanging("set", "aclose")
        closed = store(backend)
        closed.put("k", text())
        await closed.aclose()
        assert now() == DRAIN_SECONDS + CLOSE_SECONDS
        assert backend.calls == [("set", 0.0), ("aclose", DRAIN_SECONDS)]

    simulate(main())


def test_a_count_that_hangs_does_not_delay_closing() -> None:
    async def main() -> None:
        counted = store(Hanging("stats"))
        await counted.count_items()
        await counted.aclose()
        assert now() == pytest.approx(COUNT_SECONDS)

    simulate(main())


def test_bytes_wait_to_be_written_up_to_a_limit() -> None:
    async def main() -> None:
        size = len(encode_record(AnswerRecord("a", 0.0, text())))
        waiting = store(Hanging("set"), max_unwritten_bytes=2 * size)
        assert waiting.put("a", text()) is not None
        assert waiting.put("b", text()) is not None
        assert waiting.put("c", text()) is None
        await waiting.wait_for_writes()
        assert waiting.put("c", text()) is not None
        await waiting.aclose()
        small = store(Hanging("set"), max_unwritten_bytes=size - 1)
        assert small.put("a", text()) is None

    simulate(main())


def test_a_store_whose_queue_was_full_writes_again_after_the_next_write(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        counters = CacheCounters()
        full = ResponseStore(Hanging(), counters, max_unwritten_bytes=300, now=now)
        for shed in (1, 2):
            assert full.put("k", text("long" * 100)) is None
            assert counters.shed == shed
        assert "an answer is not stored: 0 bytes wait to be written" in caplog.text
        assert not full.writes
        pending = full.put("k", text())
        assert pending is not None
        assert await full.written("k")
        assert full.writes

    simulate(main())


def test_a_write_that_is_late_at_the_end_is_shed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        counters = CacheCounters()
        closing = ResponseStore(Hanging("set"), counters, now=now)
        for key in ("a", "b"):
            closing.put(key, text())
        await closing.aclose()
        assert (now(), counters.shed) == (DRAIN_SECONDS, 2)
        assert "an answer is not stored: the store took longer than 5 s when the server ended" in caplog.text

    simulate(main())


def test_what_is_in_the_store_is_written() -> None:
    async def main() -> None:
        backend = Hanging()
        await backend.set("k", encode_record(AnswerRecord("k", 0.0, text())))
        assert await store(backend).written("k")
        assert not await store(backend).written("other")

    simulate(main())


def test_writes_of_one_key_are_waited_for_alone() -> None:
    async def main() -> None:
        backend = Hanging("set")
        waiting = store(backend)
        waiting.put("a", text())
        await asyncio.sleep(1)
        waiting.put("b", text())
        await waiting.wait_for_writes("none")
        assert now() == 1
        await waiting.wait_for_writes("a")
        assert now() == WRITE_SECONDS
        await waiting.wait_for_writes()
        assert now() == WRITE_SECONDS + 1

    simulate(main())


def test_stored_is_said_of_what_is_stored() -> None:
    async def main() -> None:
        backend = Hanging("set")
        executor = CachingExecutor(ScriptedExecutor(), backend, settings())
        first = await executor.submit(ask("first"))
        assert not first.stored, "as a stream's header says"
        await first.completion()
        assert (now(), first.stored) == (WRITE_WAIT_SECONDS, False)
        await asyncio.sleep(WRITE_SECONDS)
        assert not first.stored
        backend.methods.clear()
        second = await executor.submit(ask("second"))
        assert not second.stored
        await second.completion()
        assert second.stored
        await executor.aclose()

    simulate(main())


def test_an_answer_waits_a_moment_for_its_write() -> None:
    async def main() -> None:
        executor = CachingExecutor(ScriptedExecutor(), Hanging("set"), settings())
        answer = await executor.submit(ask())
        await answer.completion()
        assert now() == pytest.approx(WRITE_WAIT_SECONDS)
        await executor.aclose()

    simulate(main())


def test_patience_ends_before_the_engine_accepts() -> None:
    class Slow(ScriptedExecutor):
        async def count_tokens(self, request: GenerationRequest) -> int:
            await asyncio.sleep(9)
            return 3

    async def main() -> None:
        executor = CachingExecutor(Slow(), Hanging(), settings())
        answer = await executor.submit(ask(), patience=2.0)
        assert (now(), answer.prompt_tokens) == (2.0, 0)
        assert (await answer.completion()).choices[0].text == "one two three"
        assert now() == 9
        await executor.aclose()

    simulate(main())


class Unidentified(ScriptedExecutor):
    """It is identified at 9 seconds."""

    def __init__(self) -> None:
        super().__init__(profile=msgspec.structs.replace(ScriptedExecutor().profile, fingerprint=""))

    async def identify(self) -> None:
        await asyncio.sleep(9 - now())
        self.profile = msgspec.structs.replace(self.profile, fingerprint="known")


def test_a_model_that_is_identified_in_time_is_waited_for() -> None:
    async def main() -> None:
        executor = CachingExecutor(Unidentified(), Hanging(), settings())
        answer = await executor.submit(ask(), patience=10.0)
        assert (now(), answer.outcome) == (9.0, "miss")
        await answer.completion()
        assert answer.stored
        await executor.aclose()

    simulate(main())


def test_an_answer_opens_before_the_model_is_identified() -> None:
    async def main() -> None:
        executor = CachingExecutor(Unidentified(), Hanging(), settings())
        early = await executor.submit(ask(), patience=2.0)
        assert (now(), early.outcome, early.stored) == (2.0, "miss", False)
        assert (await early.completion()).choices[0].text == "one two three"
        assert now() == 9
        assert (await executor.submit(ask())).outcome == "hit"
        assert executor.counters.misses == executor.counters.hits == 1
        await executor.aclose()

    simulate(main())


def test_an_abandoned_generation_goes_on_for_its_time() -> None:
    async def main() -> None:
        numbered = Numbered()
        numbered.gate.clear()
        inner = ScriptedExecutor(numbered.script)
        executor = CachingExecutor(inner, Hanging(), settings(finish_abandoned_seconds=4.0))
        answer = await executor.submit(ask())
        await asyncio.sleep(1)
        await answer.aclose()
        await asyncio.sleep(3.9)
        assert inner.aborted == 0
        await asyncio.sleep(0.2)
        assert inner.aborted == 1
        await executor.aclose()

    simulate(main())


def test_closing_waits_for_flights_no_longer_than_its_limit() -> None:
    async def stubborn(flight: Flight) -> AsyncGenerator[Event, None]:
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(60)
        yield

    async def main() -> None:
        flights = Flights()
        flights.start(Flight(stubborn, lambda flight: None), ("m", "k"))
        await asyncio.sleep(0.5)
        await flights.aclose(7)
        assert now() == 7.5
        await flights.aclose(100)
        assert now() == 60.5

    simulate(main())
