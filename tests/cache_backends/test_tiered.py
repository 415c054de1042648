"""Several stores as one."""

import asyncio

import pytest

from cache_backends import BackendStats, CacheBackend, CacheUnavailable
from cache_backends.memory import MemoryBackend
from cache_backends.tiered import UNKNOWN_TTL_SECONDS, TieredBackend
from tests.cache_backends.conftest import Clock, until


class GatedBackend(MemoryBackend):
    """Gives way at every call until its gate is open, and refuses while it is down."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock=clock or Clock())
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

    async def get(self, key: str) -> bytes | None:
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


class SilentBackend:
    """A store that says nothing of how long its values hold, as another package's may."""

    def __init__(self) -> None:
        self._inner = MemoryBackend()
        self.get, self.set, self.delete = self._inner.get, self._inner.set, self._inner.delete
        self.clear, self.stats, self.aclose = self._inner.clear, self._inner.stats, self._inner.aclose


async def eventually(backend: CacheBackend, key: str, value: bytes | None) -> None:
    async def holds() -> bool:
        return await backend.get(key) == value

    await until(holds, f"{backend!r} has {value!r} under {key}")


async def test_a_read_fills_every_faster_tier() -> None:
    tiers = [MemoryBackend(), MemoryBackend(), MemoryBackend()]
    backend = TieredBackend(tiers)
    await tiers[2].set("k", b"v")
    assert await backend.get("k") == b"v"
    assert await tiers[0].get("k") == b"v"
    await eventually(tiers[1], "k", b"v")


async def test_a_fill_holds_no_longer_than_the_tier_it_came_from() -> None:
    fast, slow = Clock(), Clock()
    tiers = [MemoryBackend(clock=fast), MemoryBackend(clock=slow)]
    backend = TieredBackend(tiers)
    await tiers[1].set("k", b"v", ttl=10)
    slow.now += 4
    assert await backend.get_with_ttl("k") == (b"v", 6)
    assert await tiers[0].get_with_ttl("k") == (b"v", 6)
    fast.now += 6
    slow.now += 6
    assert await backend.get("k") is None


async def test_a_fill_from_a_store_that_cannot_say_is_short() -> None:
    first, silent = MemoryBackend(clock=Clock()), SilentBackend()
    backend = TieredBackend([first, silent])
    await silent.set("k", b"v")
    assert await backend.get("k") == b"v"
    assert await first.get_with_ttl("k") == (b"v", UNKNOWN_TTL_SECONDS)


async def test_a_write_does_not_wait_for_the_slower_tier_and_is_read_meanwhile() -> None:
    slow = GatedBackend()
    first = MemoryBackend()
    backend = TieredBackend([first, slow])
    slow.gate.clear()
    await backend.set("k", b"v", ttl=100)
    await first.clear()
    assert await backend.get("k") == b"v"
    slow.gate.set()
    await eventually(slow, "k", b"v")


async def test_a_deletion_is_not_overtaken_by_an_earlier_write() -> None:
    slow = GatedBackend()
    backend = TieredBackend([MemoryBackend(), slow])
    slow.gate.clear()
    await backend.set("k", b"v")
    await until(lambda: _waits(slow), "the write behind has begun")
    deletion = asyncio.create_task(backend.delete("k"))
    await asyncio.sleep(0)
    slow.gate.set()
    assert await deletion is True
    assert await backend.get("k") is None
    assert await slow.get("k") is None


async def test_a_value_that_is_deleted_while_it_is_read_is_not_filled_in() -> None:
    class LateToAnswer(MemoryBackend):
        """Has found the value when the deletion comes, and says so after it."""

        async def get_with_ttl(self, key: str) -> tuple[bytes, float | None] | None:
            found = await super().get_with_ttl(key)
            has_read.set()
            await gate.wait()
            return found

    has_read, gate = asyncio.Event(), asyncio.Event()
    first, slow = MemoryBackend(), LateToAnswer()
    backend = TieredBackend([first, slow])
    await slow.set("k", b"v")
    reading = asyncio.create_task(backend.get("k"))
    await has_read.wait()
    await backend.delete("k")
    gate.set()
    assert await reading == b"v"
    assert await first.get("k") is None
    assert await backend.get("k") is None


async def test_a_value_that_is_replaced_while_it_is_written_is_written_again() -> None:
    slow = GatedBackend()
    backend = TieredBackend([MemoryBackend(), slow])
    slow.gate.clear()
    await backend.set("k", b"old")
    await until(lambda: _waits(slow), "the write behind has begun")
    await backend.set("k", b"new")
    slow.gate.set()
    await eventually(slow, "k", b"new")


class SharedBackend(GatedBackend):
    """A store that others share. `found` is what they find under a key when they get its lease."""

    def __init__(self) -> None:
        super().__init__()
        self.found: bytes | None = None
        self.leases = self

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        return None

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        return True

    async def release(self, key: str, holder: str) -> None:
        self.found = await MemoryBackend.get(self, key)


async def test_a_lease_is_given_back_when_the_value_is_where_the_others_look() -> None:
    shared = SharedBackend()
    backend = TieredBackend([MemoryBackend(), shared])
    assert backend.leases is not None
    shared.gate.clear()
    await backend.set("k", b"v")
    releasing = asyncio.create_task(backend.leases.release("k", "holder"))
    await until(lambda: _waits(shared), "the write behind has begun")
    shared.gate.set()
    await releasing
    assert shared.found == b"v"


async def test_aclose_writes_what_waits() -> None:
    kept: dict[str, bytes] = {}

    class Recording(GatedBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            await super().set(key, value, ttl=ttl)
            kept[key] = value

    slow = Recording()
    backend = TieredBackend([MemoryBackend(), slow])
    slow.gate.clear()
    for index in range(10):
        await backend.set(f"k{index}", b"v")
    closing = asyncio.create_task(backend.aclose())
    await asyncio.sleep(0)
    slow.gate.set()
    await closing
    assert len(kept) == 10


async def test_aclose_does_not_wait_for_ever() -> None:
    slow = GatedBackend()
    backend = TieredBackend([MemoryBackend(), slow], drain_seconds=0.01)
    slow.gate.clear()
    await backend.set("k", b"v")
    await asyncio.wait_for(backend.aclose(), 5)


async def test_what_waits_is_bounded() -> None:
    slow = GatedBackend()
    backend = TieredBackend([MemoryBackend(max_bytes=10), slow], max_unwritten_bytes=100)
    slow.gate.clear()
    for index in range(5):
        await backend.set(f"k{index}", b"v" * 40)
    slow.gate.set()
    await eventually(slow, "k1", b"v" * 40)
    assert await slow.get("k2") is None
    assert (await backend.stats()).errors == 3


@pytest.mark.parametrize("down", [0, 1])
async def test_one_tier_down_is_passed_over(down: int) -> None:
    tiers = [GatedBackend(), GatedBackend()]
    backend = TieredBackend(tiers)
    tiers[down].down = True
    await backend.set("k", b"v")
    assert await backend.get("k") == b"v"
    assert await backend.get("other") is None
    with pytest.raises(CacheUnavailable):
        await backend.delete("k")
    assert await backend.get("k") is None
    stats = await backend.stats()
    assert stats.tiers[down].errors == 1
    assert stats.errors > 0


async def test_all_tiers_down_is_unavailable() -> None:
    tiers = [GatedBackend(), GatedBackend()]
    backend = TieredBackend(tiers)
    for tier in tiers:
        tier.down = True
    for read in (backend.get, backend.get_with_ttl):
        with pytest.raises(CacheUnavailable):
            await read("k")
    with pytest.raises(CacheUnavailable):
        await backend.clear()


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
    assert await backend.get_with_ttl("k") == (b"v", 9)
    assert await stores[0].get_with_ttl("k") == (b"v", 9)
    await stores[2].set("l", b"w")
    assert await backend.get("l") == b"w"
    assert await stores[0].get("l") == b"w"
    assert repr(backend).count("MemoryBackend") == 3


async def test_a_defect_of_a_slower_tier_does_not_end_its_writing(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            if key == "bad":
                raise RuntimeError("a defect")
            await super().set(key, value, ttl=ttl)

    slow = Defective()
    backend = TieredBackend([MemoryBackend(), slow])
    await backend.set("bad", b"v")
    await backend.set("good", b"v")
    await eventually(slow, "good", b"v")
    assert (await backend.stats()).errors == 1
    assert "not written" in caplog.text
