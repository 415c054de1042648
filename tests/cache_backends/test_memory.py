"""The memory store against a dictionary with a clock."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache_backends.base import Found, ValueTooLarge
from cache_backends.memory import MemoryBackend
from tests.cache_backends.conftest import Clock, value_of

T = TypeVar("T")

MAX_ITEMS = 4
MAX_BYTES = 60

keys = st.sampled_from(["a", "b", "c", "d", "e", "f"])
ttls = st.none() | st.floats(min_value=-1, max_value=10)


def run(call: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(call)


class MemoryMachine(RuleBasedStateMachine):
    """The model is a list of (key, value, expires at), the least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.backend = MemoryBackend(max_items=MAX_ITEMS, max_bytes=MAX_BYTES, clock=self.clock)
        self.model: list[tuple[str, bytes, float | None]] = []
        self.evictions = 0

    def take(self, key: str) -> tuple[str, bytes, float | None] | None:
        """Removes a key from the model; returns it if it still held."""
        entry = next((entry for entry in self.model if entry[0] == key), None)
        if entry is None:
            return None
        self.model.remove(entry)
        return None if entry[2] is not None and entry[2] <= self.clock.now else entry

    @rule(key=keys, value=st.binary(max_size=70), ttl=ttls)
    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        self.take(key)
        if len(key) + len(value) > MAX_BYTES:
            with pytest.raises(ValueTooLarge):
                run(self.backend.set(key, value, ttl=ttl))
            return
        run(self.backend.set(key, value, ttl=ttl))
        if ttl is not None and ttl <= 0:
            return
        self.model.append((key, value, None if ttl is None else self.clock.now + ttl))
        while len(self.model) > MAX_ITEMS or sum(len(key) + len(value) for key, value, _ in self.model) > MAX_BYTES:
            self.model.pop(0)
            self.evictions += 1

    @rule(key=keys)
    def get(self, key: str) -> None:
        entry = self.take(key)
        if entry is not None:
            self.model.append(entry)
        left = None if entry is None or entry[2] is None else entry[2] - self.clock.now
        assert run(self.backend.get(key)) == (entry and Found(entry[1], left))

    @rule(key=keys)
    def delete(self, key: str) -> None:
        assert run(self.backend.delete(key)) is (self.take(key) is not None)

    @rule()
    def clear(self) -> None:
        assert run(self.backend.clear()) == len(self.model)
        self.model.clear()

    @rule(seconds=st.floats(min_value=0, max_value=6))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def counts_agree(self) -> None:
        stats = run(self.backend.stats())
        assert stats.items == len(self.model)
        assert stats.bytes == sum(len(key) + len(value) for key, value, _ in self.model)
        assert stats.evictions == self.evictions


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


async def test_get_finishes_without_giving_way() -> None:
    """A lookup in memory is answered in the same turn of the event loop."""
    backend = MemoryBackend()
    await backend.set("k", b"v")
    with pytest.raises(StopIteration) as finished:
        value_of(backend, "k").send(None)
    assert finished.value.value == b"v"


async def test_repr_tells_how_full_it_is() -> None:
    backend = MemoryBackend()
    await backend.set("k", b"value")
    assert repr(backend) == "<MemoryBackend items=1 bytes=6>"


async def test_exactly_what_fits_is_held() -> None:
    backend = MemoryBackend(max_items=2, max_bytes=6)
    await backend.set("a", b"12")
    await backend.set("b", b"12")
    stats = await backend.stats()
    assert (stats.backend, stats.items, stats.bytes, stats.evictions) == ("memory", 2, 6, 0)
    assert (stats.max_items, stats.max_bytes) == (2, 6)
    await backend.set("a", b"12345")
    assert (await backend.stats()).items == 1
    assert await value_of(backend, "a") == b"12345"


@pytest.mark.parametrize("end", ["clear", "aclose"])
async def test_nothing_is_left_at_the_end(end: str) -> None:
    backend = MemoryBackend()
    await backend.set("k", b"v")
    await getattr(backend, end)()
    stats = await backend.stats()
    assert (stats.items, stats.bytes, stats.evictions) == (0, 0, 0)


async def test_keys_are_listed_until_they_expire() -> None:
    clock = Clock()
    backend = MemoryBackend(clock=clock)
    await backend.set("for ever", b"v")
    await backend.set("soon", b"v", ttl=5)
    clock.now += 4
    assert [key async for key in backend.list_keys()] == ["for ever", "soon"]
    clock.now += 1
    assert [key async for key in backend.list_keys()] == ["for ever"]
