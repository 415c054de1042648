"""Prefix caches of several ranks hold the same, however different their memory is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executor.distributed.agreement import open_agreed, smallest
from service.executor.distributed.local_ranks import local_ranks
from service.executor.distributed.ranks import Ranks
from service.executor.prefix.cache import NoPrefixCache, Prefixes
from tests.examples import examples
from tests.executor.token_states import BYTES_PER_TOKEN, TokenState, TokenStates

T = TypeVar("T")


class LargeState(msgspec.Struct, frozen=True):
    state: TokenState
    nbytes: int


class LargeCaches(TokenStates):
    """A part with `layers` as many layers."""

    def __init__(self, layers: int, *, cuts_anywhere: bool = True) -> None:
        super().__init__(cuts_anywhere=cuts_anywhere)
        self._layers = layers

    def capture(self, caches: list[Any], start: int, end: int) -> Any:
        state = super().capture(caches, start, end)
        return LargeState(state, state.nbytes * self._layers)

    def restore(self, parts: list[tuple[Any, int]]) -> list[Any]:
        return super().restore([(part.state, tokens) for part, tokens in parts])


def on_all(size: int, run: Callable[[Ranks], T]) -> list[T]:
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(run, local_ranks(size)))


prompts = st.lists(st.integers(0, 2), min_size=3, max_size=12)
operations = st.lists(st.tuples(st.sampled_from(["keep", "find", "give back"]), prompts), max_size=15)


@examples(60)
@given(operations, st.lists(st.integers(1, 4), min_size=2, max_size=3), st.booleans())
def test_all_ranks_know_the_same(
    operations: list[tuple[str, list[int]]], layers: list[int], cuts_anywhere: bool
) -> None:
    """Each has another number of layers, and misses another amount of memory."""

    def run(ranks: Ranks) -> list[int]:
        caches = LargeCaches(layers[ranks.rank], cuts_anywhere=cuts_anywhere)
        prefixes = open_agreed(caches, 30 * BYTES_PER_TOKEN * (1 + ranks.rank), ranks)
        return [answer(prefixes, ranks.rank, name, prompt) for name, prompt in operations]

    def answer(prefixes: Prefixes, rank: int, name: str, prompt: list[int]) -> int:
        if name == "keep":
            return prefixes.keep("", prompt, prompt)
        if name == "give back":
            prefixes.set_headroom(10 - rank * len(prompt))
            return prefixes.nbytes
        reuse = prefixes.find("", prompt)
        assert (reuse.caches or []) == prompt[: reuse.length]
        return reuse.length

    first, *others = on_all(len(layers), run)
    assert others == [first] * len(others)


def test_the_least_memory_and_the_largest_part_count() -> None:
    def run(ranks: Ranks) -> tuple[int, int]:
        prefixes = open_agreed(LargeCaches(1 + ranks.rank), 100 * BYTES_PER_TOKEN // (1 + ranks.rank), ranks)
        prefixes.keep("", list(range(20)), list(range(20)))
        before = prefixes.nbytes
        prefixes.keep("", list(range(100, 131)), list(range(100, 131)))  # too large for the second rank
        return before, prefixes.nbytes

    assert on_all(2, run) == [(40 * BYTES_PER_TOKEN, 0)] * 2


@pytest.mark.parametrize(
    ("kinds", "needs_boundaries"), [((True, True), False), ((True, False), True), ((False, False), True)]
)
def test_states_can_be_cut_where_all_parts_can(kinds: tuple[bool, bool], needs_boundaries: bool) -> None:
    def run(ranks: Ranks) -> bool:
        return open_agreed(LargeCaches(1, cuts_anywhere=kinds[ranks.rank]), 1000, ranks).needs_boundaries

    assert on_all(2, run) == [needs_boundaries] * 2


@pytest.mark.parametrize("memory", [(0, 1000), (1000, 0)])
def test_where_one_has_no_room_nobody_keeps_anything(memory: tuple[int, int]) -> None:
    caches = [open_agreed(None, 1000, local_ranks(1)[0])]
    caches += on_all(2, lambda ranks: open_agreed(LargeCaches(1), memory[ranks.rank], ranks))
    caches += on_all(2, lambda ranks: open_agreed(LargeCaches(1) if ranks.rank else None, 1000, ranks))
    assert all(isinstance(each, NoPrefixCache) for each in caches)


def test_the_smallest_number_of_all() -> None:
    assert on_all(3, lambda ranks: smallest(ranks, (7, -3, 5)[ranks.rank])) == [-3] * 3
