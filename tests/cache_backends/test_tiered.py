"""Several stores as one."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cache_backends import BackendStats, CacheBackend, CacheUnavailable
from cache_backends.base import Found, ValueTooLarge
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import MAX_FILLS, TieredBackend
from tests.cache_backends.conftest import Clock, until, value_of
from tests.patience import PATIENCE_SECONDS

T = TypeVar("T")


class GatedBackend(MemoryBackend):
    """Gives way at every call until its gate is open, and refuses while it is down."""

    def __init__(self, clock: Clock | None = None, *, max_items: int | None = None) -> None:
        super().__init__(clock=clock or Clock(), max_items=max_items)
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False
        self.waiting = 0

    async def _pass(self) -> None:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.down:
            raise CacheUnavailable("down")

    async def get(self, key: str) -> Found | None:
        await self._pass()
        return await super().get(key)

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        await self._pass()
        await super().set(key, value, ttl=ttl)

    async def delete(self, key: str) -> bool:
        await self._pass()
        return await super().delete(key)

    async def clear(self) -> int:
        await self._pass()
        return await super().clear()

    async def stats(self) -> BackendStats:
        await self._pass()
        return await super().stats()


class PlainBackend:
    """A store with the methods of the protocol alone, as another package's may be."""

    def __init__(self) -> None:
        self._inner = MemoryBackend()
        self.get, self.set, self.delete = self._inner.get, self._inner.set, self._inner.delete
        self.clear, self.stats, self.aclose = self._inner.clear, self._inner.stats, self._inner.aclose


async def eventually(backend: CacheBackend, key: str, value: bytes | None) -> None:
    async def holds() -> bool:
        return await value_of(backend, key) == value

    await until(holds, f"{backend!r} has {value!r} under {key}")


async def test_a_read_fills_every_faster_tier() -> None:
    tiers = [MemoryBackend(), MemoryBackend(), MemoryBackend()]
    backend = TieredBackend(tiers)
    await tiers[2].set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    assert await value_of(tiers[0], "k") == b"v"
    await eventually(tiers[1], "k", b"v")


async def test_a_fill_holds_no_longer_than_the_tier_it_came_from() -> None:
    fast, slow = Clock(), Clock()
    tiers = [MemoryBackend(clock=fast), MemoryBackend(clock=slow)]
    backend = TieredBackend(tiers)
    await tiers[1].set("k", b"v", ttl=10)
    slow.now += 4
    assert await backend.get("k") == Found(b"v", 6)
    assert await tiers[0].get("k") == Found(b"v", 6)
    fast.now += 6
    slow.now += 6
    assert await value_of(backend, "k") is None


async def test_a_reader_does_not_wait_for_the_tiers_between() -> None:
    class SlowToWrite(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            await gate.wait()
            await super().set(key, value, ttl=ttl)

    gate = asyncio.Event()
    between, last = SlowToWrite(), MemoryBackend()
    backend = TieredBackend([MemoryBackend(), between, last])
    for index in range(100):
        await last.set(f"k{index}", b"v")
        assert await value_of(backend, f"k{index}") == b"v"
    gate.set()
    await eventually(between, "k0", b"v")
    assert (await between.stats()).items == MAX_FILLS
    await backend.aclose()


async def test_closing_ends_the_fills_that_still_wait() -> None:
    class Recording(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            begun.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                happened.append("the fill ended")

        async def aclose(self) -> None:
            happened.append("the tier closed")

    happened: list[str] = []
    begun = asyncio.Event()
    last = MemoryBackend()
    backend = TieredBackend([MemoryBackend(), Recording(), last])
    await last.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    async with asyncio.timeout(PATIENCE_SECONDS):
        await begun.wait()
        await backend.aclose()
    assert happened == ["the fill ended", "the tier closed"]


async def test_every_tier_between_gets_the_value_for_its_time() -> None:
    clock = Clock()
    tiers = [MemoryBackend(clock=clock) for _ in range(3)]
    backend = TieredBackend(tiers)
    for number in range(2 * MAX_FILLS):
        await tiers[2].set(f"k{number}", b"v", ttl=9)
        assert await value_of(backend, f"k{number}") == b"v"
        await eventually(tiers[1], f"k{number}", b"v")
        assert await tiers[1].get(f"k{number}") == Found(b"v", 9)


async def test_a_plain_store_may_be_a_tier() -> None:
    first, plain = MemoryBackend(), PlainBackend()
    backend = TieredBackend([first, plain])
    await plain.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    assert await value_of(first, "k") == b"v"
    assert [key async for key in backend.list_keys()] == ["k"]
    assert backend.leases is None


async def test_a_write_returns_when_every_tier_has_it() -> None:
    slow = GatedBackend()
    backend = TieredBackend([MemoryBackend(), slow])
    slow.gate.clear()
    writing = asyncio.create_task(backend.set("k", b"v", ttl=100))
    await until(lambda: _waits(slow), "the slower tier is asked")
    assert await value_of(backend, "k") == b"v"
    assert not writing.done()
    slow.gate.set()
    await writing
    assert await value_of(slow, "k") == b"v"


@pytest.mark.parametrize("change", ["delete", "clear"])
async def test_a_value_that_is_deleted_while_it_is_read_is_not_filled_in(change: str) -> None:
    class LateToAnswer(MemoryBackend):
        """Has found the value when the deletion comes, and says so after it."""

        async def get(self, key: str) -> Found | None:
            found = await super().get(key)
            has_read.set()
            await gate.wait()
            return found

    has_read, gate = asyncio.Event(), asyncio.Event()
    first, slow = MemoryBackend(), LateToAnswer()
    backend = TieredBackend([first, slow])
    await backend.set("other", b"v")
    await slow.set("k", b"v")
    reading = asyncio.create_task(value_of(backend, "k"))
    await has_read.wait()
    await (backend.delete("k") if change == "delete" else backend.clear())
    gate.set()
    assert await reading == b"v"
    assert await value_of(first, "k") is None
    assert await value_of(backend, "k") is None


class SharedBackend(MemoryBackend):
    """A store that other processes share."""

    leases = property(lambda self: self)

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        return None

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        return True

    async def release(self, key: str, holder: str) -> None: ...


async def test_the_leases_are_those_of_the_fastest_tier_that_is_shared() -> None:
    shared = SharedBackend()
    assert TieredBackend([MemoryBackend(), shared, SharedBackend()]).leases is shared


@pytest.mark.parametrize(("count", "size", "away"), [(200, 400, True), (300, 400_000, False)])
async def test_a_write_that_returned_is_in_the_store(count: int, size: int, away: bool) -> None:
    """However small or absent the first tier is, and however many writes there are at once."""
    first = GatedBackend()
    first.down = away
    last = MemoryBackend(max_bytes=2**30)
    backend = TieredBackend([first, last])
    await asyncio.gather(*(backend.set(f"k{index}", bytes(size)) for index in range(count)))
    assert [index for index in range(count) if await value_of(backend, f"k{index}") is None] == []


@pytest.mark.parametrize("down", [0, 1])
async def test_one_tier_down_is_passed_over(down: int) -> None:
    tiers = [GatedBackend(), GatedBackend()]
    backend = TieredBackend(tiers)
    tiers[down].down = True
    await backend.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    assert await value_of(backend, "other") is None
    with pytest.raises(CacheUnavailable):
        await backend.delete("k")
    assert await value_of(backend, "k") is None
    stats = await backend.stats()
    assert stats.tiers[down].errors == 1
    assert stats.errors > 0


async def test_all_tiers_down_is_unavailable() -> None:
    tiers = [GatedBackend(), GatedBackend()]
    backend = TieredBackend(tiers)
    for tier in tiers:
        tier.down = True
    with pytest.raises(CacheUnavailable):
        await backend.get("k")
    with pytest.raises(CacheUnavailable):
        await backend.set("k", b"v")
    with pytest.raises(CacheUnavailable):
        await backend.clear()


async def test_stats_add_up() -> None:
    backend = TieredBackend([MemoryBackend(max_items=1), MemoryBackend(), MemoryBackend(max_items=2)])
    for key in ("a", "b", "c"):
        await backend.set(key, b"v")
    stats = await backend.stats()
    assert (stats.backend, stats.items, stats.bytes, stats.evictions, stats.errors) == ("tiered", 3, 12, 1, 0)
    assert [tier.evictions for tier in stats.tiers] == [2, 0, 1]


def test_no_tiers() -> None:
    with pytest.raises(ValueError, match="at least one tier"):
        TieredBackend([])


async def _waits(backend: GatedBackend) -> bool:
    return backend.waiting > 0


async def test_tiers_within_tiers() -> None:
    clock = Clock()
    stores = [MemoryBackend(clock=clock) for _ in range(3)]
    backend = TieredBackend([TieredBackend(stores[:2]), stores[2]])
    await stores[1].set("k", b"v", ttl=9)
    assert await backend.get("k") == Found(b"v", 9)
    assert await stores[0].get("k") == Found(b"v", 9)
    await stores[2].set("l", b"w")
    assert await value_of(backend, "l") == b"w"
    assert await value_of(stores[0], "l") == b"w"
    assert repr(backend).count("MemoryBackend") == 3


async def test_a_defect_of_a_tier_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            raise RuntimeError("a defect")

    backend = TieredBackend([MemoryBackend(), Defective()])
    await backend.set("k", b"v")
    assert await value_of(backend, "k") == b"v"
    assert (await backend.stats()).errors == 1
    (record,) = caplog.records
    assert (record.levelname, record.exc_info and record.exc_info[0]) == ("ERROR", RuntimeError)
    assert record.getMessage() == "<MemoryBackend items=0 bytes=0>: not written: RuntimeError('a defect')"


async def test_a_tier_that_is_away_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    down = GatedBackend()
    down.down = True
    await TieredBackend([MemoryBackend(), down]).set("k", b"v")
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("INFO", False)]


async def test_a_late_fill_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            raise ValueTooLarge("no room")

    async def is_logged() -> bool:
        return "<MemoryBackend items=0 bytes=0>: not written: ValueTooLarge('no room')" in caplog.text

    caplog.set_level("INFO")
    last = MemoryBackend()
    await last.set("k", b"v")
    assert await value_of(TieredBackend([MemoryBackend(), Refusing(), last]), "k") == b"v"
    await until(is_logged, "the failure is logged")


async def test_a_value_too_large_for_one_tier_is_in_the_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    backend = TieredBackend([MemoryBackend(), MemoryBackend(max_bytes=10)])
    for key in ("k", "l"):
        await backend.set(key, b"v" * 20)
        assert await value_of(backend, key) == b"v" * 20
    stats = await backend.stats()
    assert (stats.errors, stats.shed) == (0, 2)
    assert "not written: ValueTooLarge" in caplog.text
    with pytest.raises(ValueTooLarge):
        await TieredBackend([MemoryBackend(max_bytes=10)]).set("k", b"v" * 20)


async def test_a_write_that_no_tier_took_raises_the_failure_that_may_pass() -> None:
    small, down = MemoryBackend(max_bytes=10), GatedBackend()
    down.down = True
    for tiers in ([small, down], [down, small]):
        with pytest.raises(CacheUnavailable, match="down"):
            await TieredBackend(tiers).set("k", b"v" * 20)


async def test_each_failure_of_a_tier_is_counted() -> None:
    down = GatedBackend()
    backend = TieredBackend([down, MemoryBackend()])
    down.down = True
    for number in range(3):
        await backend.set(f"k{number}", b"v")
        assert await value_of(backend, f"k{number}") == b"v"
    stats = await backend.stats()
    assert stats.errors == 6
    assert stats.tiers[0] == BackendStats(backend=repr(down), errors=1)
    assert (stats.items, stats.bytes) == (3, 9)


async def test_tiers_that_count_nothing_have_no_count() -> None:
    class Uncounted(MemoryBackend):
        async def stats(self) -> BackendStats:
            return BackendStats(backend="uncounted")

    stats = await TieredBackend([Uncounted(), Uncounted()]).stats()
    assert (stats.items, stats.bytes, len(stats.tiers)) == (None, 0, 2)


async def test_a_late_fill_does_not_replace_a_newer_value() -> None:
    between = GatedBackend()
    backend = TieredBackend([MemoryBackend(), between, MemoryBackend(), last := MemoryBackend()])
    await last.set("k", b"old")
    assert await value_of(backend, "k") == b"old"
    await backend.set("k", b"new")
    await asyncio.sleep(0)
    assert await value_of(between, "k") == b"new"
    await backend.aclose()


class TieredMachine(RuleBasedStateMachine):
    """Against a dictionary, while tiers come and go. The first tier is too small for all keys.

    A tier that missed a change may still have an older value of that key. Such a key is in `missed` until all tiers
    take part in its next change.
    """

    keys = st.sampled_from(["a", "b", "c"])

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.tiers = [GatedBackend(self.clock, max_items=2), GatedBackend(self.clock), GatedBackend(self.clock)]
        self.backend = TieredBackend(self.tiers)
        self.newest: dict[str, tuple[bytes, float | None]] = {}
        self.ever: dict[tuple[str, bytes], float | None] = {}
        self.missed: set[str] = set()
        self.count = 0

    @property
    def away(self) -> list[bool]:
        return [tier.down for tier in self.tiers]

    def run(self, work: Coroutine[None, None, T]) -> T:
        async def with_fills() -> T:
            try:
                return await work
            finally:
                while self.backend._fills:  # noqa: ASYNC110 -- nothing announces it
                    await asyncio.sleep(0)

        return self.loop.run_until_complete(with_fills())

    def change(self, *keys: str) -> None:
        for key in keys:
            self.newest.pop(key, None)
            (self.missed.add if any(self.away) else self.missed.discard)(key)

    @rule(tier=st.integers(0, 2), down=st.booleans())
    def come_or_go(self, tier: int, down: bool) -> None:
        self.tiers[tier].down = down

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(key=keys, ttl=st.sampled_from([None, 5.0]))
    def set(self, key: str, ttl: float | None) -> None:
        self.count += 1
        value = f"{key}{self.count}".encode()
        if all(self.away):
            with pytest.raises(CacheUnavailable):
                self.run(self.backend.set(key, value, ttl=ttl))
            return
        self.run(self.backend.set(key, value, ttl=ttl))
        self.change(key)
        self.newest[key] = value, None if ttl is None else self.clock.now + ttl
        self.ever[key, value] = self.newest[key][1]

    @rule(key=keys)
    def delete(self, key: str) -> None:
        if any(self.away):
            with pytest.raises(CacheUnavailable):
                self.run(self.backend.delete(key))
        else:
            self.run(self.backend.delete(key))
        self.change(key)

    @rule()
    def clear(self) -> None:
        if any(self.away):
            with pytest.raises(CacheUnavailable):
                self.run(self.backend.clear())
        else:
            self.run(self.backend.clear())
        self.change("a", "b", "c")

    @rule(key=keys)
    def get(self, key: str) -> None:
        if all(self.away):
            with pytest.raises(CacheUnavailable):
                self.run(self.backend.get(key))
            return
        found = self.run(self.backend.get(key))
        newest = self.newest.get(key)
        if newest is not None and newest[1] is not None and newest[1] <= self.clock.now:
            newest = None
        if found is not None:
            expires_at = self.ever[key, found.value]
            assert (expires_at is None) == (found.ttl is None)
            assert expires_at is None or found.ttl == pytest.approx(expires_at - self.clock.now)
            assert key in self.missed or found.value == (newest and newest[0])
        elif key not in self.missed and not any(self.away):
            assert newest is None

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()


TestTieredMachine = TieredMachine.TestCase
TestTieredMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
