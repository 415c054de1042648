"""When a server asks for a lease, keeps it and gives it back, on a simulated clock."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from cache_backends import CacheUnavailable
from cache_backends.memory import MemoryBackend
from service.errors import EngineFailed, GenerationTimeout, ServiceError, ShuttingDown
from service.events import Event
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from service.response_cache.base import STORE_TIMES
from service.response_cache.record import AnswerRecord, encode_record
from service.response_cache.replicas import (
    FIRST_PAUSE_SECONDS,
    KEEPS_PER_LEASE,
    LAST_PAUSE_SECONDS,
    PAUSE_GROWTH,
    EngineLoad,
    Lease,
    Note,
    ReplicaLimits,
    Replicas,
)
from service.response_cache.single_flight import Flight, FlightAnswer
from service.response_cache.statistics import CacheCounters
from service.response_cache.store import ResponseStore
from tests.response_cache.answers import ask, text
from tests.simulation.loop import now, simulate

LEASE_SECONDS = STORE_TIMES.lease
EVERY = LEASE_SECONDS / KEEPS_PER_LEASE
WAIT_SECONDS = 20.0
TOKEN_SECONDS = 4.5
KEY = "k"


class Leases:
    """Records each call: what, when and, for `acquire` and `keep`, the note. `theirs` is another holder's note."""

    def __init__(self, theirs: Note | None = None) -> None:
        self.theirs = theirs
        self.calls: list[tuple[str, float, Note | None]] = []
        self.holders: set[str] = set()
        self.held = True
        self.failing: set[str] = set()
        self.hanging: set[str] = set()

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        await self._call("acquire", key, holder, note, ttl)
        return None if self.theirs is None else msgspec.json.encode(self.theirs).decode()

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        await self._call("keep", key, holder, note, ttl)
        return self.held

    async def release(self, key: str, holder: str) -> None:
        await self._call("release", key, holder)

    async def _call(self, what: str, key: str, holder: str, note: str | None = None, ttl: float | None = None) -> None:
        assert (key, ttl) == (KEY, None if note is None else LEASE_SECONDS)
        self.holders.add(holder)
        self.calls.append((what, now(), None if note is None else msgspec.json.decode(note, type=Note)))
        if what in self.hanging:
            await asyncio.get_running_loop().create_future()
        if what in self.failing:
            raise CacheUnavailable("away")

    def times(self, what: str) -> list[float]:
        return [when for name, when, _ in self.calls if name == what]


class Bench:
    """A server whose engine takes `TOKEN_SECONDS` for each of two tokens."""

    def __init__(self, theirs: Note | None = None) -> None:
        self.leases = Leases(theirs)
        self.backend = MemoryBackend(clock=now)
        self.failure: ServiceError | None = None
        self.inner = ScriptedExecutor(self.script, concurrency=1)
        self.store = ResponseStore(self.backend, CacheCounters(), now=now)
        limits = ReplicaLimits(places=1, wait_seconds=WAIT_SECONDS, times=STORE_TIMES)
        self.replicas = Replicas(self.inner, self.store, self.leases, limits)

    async def script(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        await asyncio.sleep(TOKEN_SECONDS)
        if self.failure is not None:
            raise self.failure
        yield "our "
        await asyncio.sleep(TOKEN_SECONDS)
        yield "answer"

    def ask(self) -> FlightAnswer:
        flight = Flight(
            partial(self.replicas.generate, KEY, ask()), lambda flight: self.store.put(KEY, flight.completion or text())
        )
        flight.start(lambda flight: None)
        return flight.join("miss")

    async def text(self) -> str:
        return "".join(part.text for part in (await self.ask().completion()).choices[0].parts)


def test_a_generation_keeps_its_lease_and_releases_it_when_it_is_stored() -> None:
    async def main() -> None:
        bench = Bench()
        assert await bench.text() == "our answer"
        await asyncio.sleep(1)
        accepted = Note(prompt_tokens=3)
        assert bench.leases.calls[:2] == [("acquire", 0.0, Note()), ("keep", 0.0, accepted)]
        # The first token keeps it at once.
        assert bench.leases.times("keep") == [0.0, 1.0, 2.0, 3.0, 4.0, 4.5, 5.5, 6.5, 7.5, 8.5]
        assert {note for what, _, note in bench.leases.calls if what == "keep"} == {accepted}
        assert bench.leases.times("release") == [2 * TOKEN_SECONDS]
        assert len(bench.leases.holders) == 1
        assert await bench.backend.get(KEY) is not None

    simulate(main())


def test_a_request_that_waits_for_a_place_has_that_in_its_note() -> None:
    async def main() -> None:
        bench = Bench()
        other = await bench.inner.submit(ask("other"))
        reading = asyncio.ensure_future(anext(aiter(other.events())))
        await asyncio.sleep(0)
        answer = bench.ask()
        await asyncio.sleep(1.5)
        assert bench.leases.calls[-1] == ("keep", EVERY, Note(prompt_tokens=3, queued=True))
        bench.inner.waiting += 1  # from now on another request waits too
        await reading
        await other.aclose()
        begins = now() + TOKEN_SECONDS
        await answer.completion()
        queued = {when < begins: note and note.queued for what, when, note in bench.leases.calls if what == "keep"}
        assert queued == {True: True, False: False}

    simulate(main())


@pytest.mark.parametrize("state", ["loading", "healthy", "degraded", "unhealthy"])
def test_a_lease_is_kept_while_the_engine_is_well(state: Any) -> None:
    async def main() -> None:
        bench = Bench()
        bench.inner.state = ExecutorStatus(state=state)
        lease = Lease(bench.leases, KEY, STORE_TIMES)
        lease.start_keeping(EngineLoad(bench.inner, places=1))
        await asyncio.sleep(1.5)
        assert bench.leases.times("keep") == ([0.0, EVERY] if state in ("loading", "healthy") else [])
        await lease.end()
        assert bench.leases.times("release") == [1.5]
        await asyncio.sleep(9)
        assert bench.leases.calls[-1][0] == "release"

    simulate(main())


def test_a_lease_that_another_has_is_kept_no_longer() -> None:
    async def main() -> None:
        bench = Bench()
        bench.leases.held = False
        assert await bench.text() == "our answer"
        assert bench.leases.times("keep") == [0.0]

    simulate(main())


@pytest.mark.parametrize("how", ["failing", "hanging"])
def test_a_lease_whose_keeping_fails_is_kept_again(how: str) -> None:
    async def main() -> None:
        bench = Bench()
        getattr(bench.leases, how).add("keep")
        assert await bench.text() == "our answer"
        pause = EVERY + (STORE_TIMES.lease_call if how == "hanging" else 0)
        assert bench.leases.times("keep")[:4] == [0.0, pause, 2 * pause, 3 * pause]

    simulate(main())


@pytest.mark.parametrize("how", ["failing", "hanging"])
def test_a_server_without_leases_generates_alone(how: str) -> None:
    async def main() -> None:
        bench = Bench()
        getattr(bench.leases, how).add("acquire")
        assert await bench.text() == "our answer"
        assert now() == 2 * TOKEN_SECONDS + (STORE_TIMES.lease_call if how == "hanging" else 0)
        assert [what for what, *_ in bench.leases.calls] == ["acquire"]

    simulate(main())


def test_a_server_that_cannot_write_asks_for_no_lease() -> None:
    async def main() -> None:
        bench = Bench()
        bench.store._failing.add("write")
        assert await bench.text() == "our answer"
        assert not bench.leases.calls

    simulate(main())


def test_waiting_polls_at_growing_intervals_until_the_answer_is_there() -> None:
    async def main() -> None:
        bench = Bench(Note(prompt_tokens=7))
        answer = bench.ask()
        await answer.until_accepted(None)
        assert (now(), answer.prompt_tokens, answer.outcome) == (0.0, 7, "collapsed")
        await asyncio.sleep(6)
        await bench.backend.set(KEY, encode_record(AnswerRecord(KEY, 0.0, text("their answer"))))
        completion = await answer.completion()
        assert completion == text("their answer")
        assert answer.stored
        polls = bench.leases.times("acquire")
        pauses = [later - earlier for earlier, later in pairwise(polls)]
        assert pauses[:3] == pytest.approx([FIRST_PAUSE_SECONDS * PAUSE_GROWTH**power for power in range(3)])
        assert pauses[-3:] == pytest.approx([LAST_PAUSE_SECONDS] * 3)
        assert pauses == sorted(pauses, key=lambda pause: round(pause, 9))
        assert len(bench.leases.holders) == len(polls)
        assert not bench.inner.submitted
        assert not bench.leases.times("release")

    simulate(main())


def test_waiting_ends_with_an_error_in_time() -> None:
    async def main() -> None:
        bench = Bench(Note())
        answer = bench.ask()
        with pytest.raises(GenerationTimeout, match=r"Another server generates .* raise requestTimeoutSeconds"):
            await answer.completion()
        assert WAIT_SECONDS <= now() <= WAIT_SECONDS + LAST_PAUSE_SECONDS
        assert answer.prompt_tokens == 0

    simulate(main())


@pytest.mark.parametrize(
    ("theirs", "busy", "alone"),
    [
        (Note(gave_up=True), False, True),
        (Note(gave_up=True), True, True),
        (Note(prompt_tokens=3, queued=True), False, True),
        (Note(prompt_tokens=3, queued=True), True, False),
        (Note(prompt_tokens=3), False, False),
    ],
)
def test_a_server_does_not_wait_where_it_gains_nothing(theirs: Note, busy: bool, alone: bool) -> None:
    async def main() -> None:
        bench = Bench(theirs)
        bench.inner.running = int(busy)
        answer = bench.ask()
        await asyncio.sleep(0.1)
        assert len(bench.inner.submitted) == alone
        assert len(bench.leases.times("acquire")) == 1 or not alone
        await answer.aclose()
        await asyncio.sleep(1)

    simulate(main())


def test_an_answer_that_is_found_under_a_new_lease_ends_it() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.backend.set(KEY, encode_record(AnswerRecord(KEY, 0.0, text("their answer"))))
        answer = bench.ask()
        assert await answer.completion() == text("their answer")
        assert (answer.stored, answer.prompt_tokens) == (True, 3)
        assert [what for what, *_ in bench.leases.calls] == ["acquire", "release"]

    simulate(main())


@pytest.mark.parametrize(
    ("failure", "last"), [(EngineFailed("broken"), ("keep", Note(gave_up=True))), (ShuttingDown(), ("release", None))]
)
def test_a_generation_that_fails_tells_the_others(failure: ServiceError, last: tuple[str, Note | None]) -> None:
    async def main() -> None:
        bench = Bench()
        bench.failure = failure
        with pytest.raises(type(failure)):
            await bench.ask().completion()
        await asyncio.sleep(1)
        what, when, note = bench.leases.calls[-1]
        assert (what, note, when) == (*last, TOKEN_SECONDS)

    simulate(main())


def test_an_answer_that_is_not_stored_is_given_up() -> None:
    class Refusing(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            raise CacheUnavailable("no room")

    async def main() -> None:
        bench = Bench()
        bench.store._backend = Refusing(clock=now)
        assert await bench.text() == "our answer"
        await asyncio.sleep(0.1)
        assert bench.leases.calls[-1] == ("keep", 2 * TOKEN_SECONDS, Note(gave_up=True))

    simulate(main())


@pytest.mark.parametrize("how", ["failing", "hanging"])
def test_a_lease_that_cannot_be_released_delays_nothing_for_long(how: str) -> None:
    async def main() -> None:
        bench = Bench()
        getattr(bench.leases, how).add("release")
        assert await bench.text() == "our answer"
        assert now() == 2 * TOKEN_SECONDS

    simulate(main())


def test_a_lookup_that_is_cancelled_gives_its_lease_back() -> None:
    async def main() -> None:
        bench = Bench()
        bench.leases.hanging.add("acquire")
        answer = bench.ask()
        await asyncio.sleep(0.1)
        await answer.aclose()
        await asyncio.sleep(0.1)
        assert [what for what, *_ in bench.leases.calls] == ["acquire", "release"]

    simulate(main())
