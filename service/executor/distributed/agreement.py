"""Calls keep spans and are equal on all ranks; sizes drop spans and differ. Therefore the smallest room and the largest
part of a state apply to all."""

from typing import Any

import msgspec

from service.executor.distributed.ranks import Ranks
from service.executor.prefix.cache import Caches, NoPrefixCache, PrefixCache, Prefixes

# How a rank's part of a state can be kept: not at all, whole at its end, or cut to any of its tokens.
UNKNOWN, WHOLE, ANYWHERE = 0, 1, 2


def smallest(ranks: Ranks, number: int) -> int:
    return -ranks.largest(-number)


def open_agreed(caches: Caches | None, memory_bytes: int, ranks: Ranks) -> Prefixes:
    # Never on disk: the disks of several machines hold different files.
    memory_bytes = smallest(ranks, memory_bytes)
    kind = smallest(ranks, UNKNOWN if caches is None else ANYWHERE if caches.cuts_anywhere else WHOLE)
    if caches is None or kind == UNKNOWN or memory_bytes == 0:
        return NoPrefixCache()
    return AgreedPrefixCache(AgreedCaches(caches, kind == ANYWHERE, ranks), memory_bytes, ranks)


class AgreedState(msgspec.Struct, frozen=True):
    """`nbytes` is the size of the largest rank's part."""

    state: Any
    nbytes: int


class AgreedCaches:
    def __init__(self, caches: Caches, cuts_anywhere: bool, ranks: Ranks) -> None:
        self.cuts_anywhere = cuts_anywhere
        self._caches = caches
        self._ranks = ranks

    def capture(self, caches: list[Any], start: int, end: int) -> AgreedState:
        state = self._caches.capture(caches, start, end)
        return AgreedState(state, self._ranks.largest(state.nbytes))

    def restore(self, parts: list[tuple[AgreedState, int]]) -> list[Any]:
        return self._caches.restore([(part.state, tokens) for part, tokens in parts])


class AgreedPrefixCache(PrefixCache):
    def __init__(self, caches: AgreedCaches, memory_bytes: int, ranks: Ranks) -> None:
        super().__init__(caches, memory_bytes)
        self._ranks = ranks

    def allow(self, more: int) -> None:
        super().allow(smallest(self._ranks, more))
