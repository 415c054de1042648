"""Calls keep spans and are equal on all ranks; sizes drop spans and differ. Therefore the smallest room and the largest
part of a state apply to all."""

from typing import Any

import msgspec

from service.executor.distributed.ranks import Ranks
from service.executor.prefix.cache import NoPrefixCache, PrefixCache, Prefixes, States

# How a rank's part of a state can be kept: not at all, whole at its end, or cut to any of its tokens.
UNKNOWN, WHOLE, ANYWHERE = 0, 1, 2


def smallest(ranks: Ranks, number: int) -> int:
    return -ranks.largest(-number)


def open_agreed(states: States | None, memory_bytes: int, ranks: Ranks) -> Prefixes:
    # Never on disk: the disks of several machines hold different files.
    memory_bytes = smallest(ranks, memory_bytes)
    kind = smallest(ranks, UNKNOWN if states is None else ANYWHERE if states.cuts_anywhere else WHOLE)
    if states is None or kind == UNKNOWN or memory_bytes == 0:
        return NoPrefixCache()
    return AgreedPrefixCache(AgreedStates(states, kind == ANYWHERE, ranks), memory_bytes, ranks)


class AgreedState(msgspec.Struct, frozen=True):
    """`nbytes` is the size of the largest rank's part."""

    state: Any
    nbytes: int


class AgreedStates:
    def __init__(self, states: States, cuts_anywhere: bool, ranks: Ranks) -> None:
        self.cuts_anywhere = cuts_anywhere
        self._states = states
        self._ranks = ranks

    def capture(self, caches: list[Any], start: int, end: int) -> AgreedState:
        state = self._states.capture(caches, start, end)
        return AgreedState(state, self._ranks.largest(state.nbytes))

    def restore(self, parts: list[tuple[AgreedState, int]]) -> list[Any]:
        return self._states.restore([(part.state, tokens) for part, tokens in parts])


class AgreedPrefixCache(PrefixCache):
    def __init__(self, states: AgreedStates, memory_bytes: int, ranks: Ranks) -> None:
        super().__init__(states, memory_bytes)
        self._ranks = ranks

    def set_headroom(self, headroom: int) -> None:
        super().set_headroom(smallest(self._ranks, headroom))
