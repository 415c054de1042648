"""A prefix cache that holds the same on all ranks: what one of them knows and another does not would be read by one and
computed by the other. Knows no MLX.

What is kept follows from the calls; what is dropped, from memory, of which ranks have more or less, and of which their
parts of a state take more or less. So sizes are asked of all, and the least room and the largest part count.
"""

from typing import Any

import msgspec

from service.executor.distributed.ranks import Ranks
from service.executor.prefix.cache import Caches, NoPrefixCache, PrefixCache, Prefixes

UNKNOWN, WHOLE, ANYWHERE = 0, 1, 2
"""How a rank's part of a state can be kept: not at all, as it is at its end, cut to any of its tokens."""


def smallest(ranks: Ranks, number: int) -> int:
    """Of the numbers that all ranks give."""
    return -ranks.largest(-number)


def open_agreed(caches: Caches | None, memory_bytes: int, ranks: Ranks) -> Prefixes:
    """In memory alone: what lies on the disks of several machines is not the same. `caches` and `memory_bytes` are this
    rank's own; layers of several kinds may have been divided so that each rank has another kind."""
    memory_bytes = smallest(ranks, memory_bytes)
    kind = smallest(ranks, UNKNOWN if caches is None else ANYWHERE if caches.cuts_anywhere else WHOLE)
    if caches is None or kind == UNKNOWN or memory_bytes == 0:
        return NoPrefixCache()
    return AgreedPrefixCache(AgreedCaches(caches, kind == ANYWHERE, ranks), memory_bytes, ranks)


class AgreedState(msgspec.Struct, frozen=True):
    """`state` is this rank's part, `nbytes` the size of the largest."""

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
    """Holds what the rank can that has least room."""

    def __init__(self, caches: AgreedCaches, memory_bytes: int, ranks: Ranks) -> None:
        super().__init__(caches, memory_bytes)
        self._ranks = ranks

    def allow(self, more: int) -> None:
        super().allow(smallest(self._ranks, more))
