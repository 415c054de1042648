from collections import OrderedDict

import msgspec

from service.response_cache.base import CacheOutcome

# About 1.5 MiB.
REMEMBERED_KEYS = 10_000


class CacheStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counts in `/health`: `hits + misses = total_requests`, without requests that were not looked up. A joined
    generation is a hit."""

    hits: int
    misses: int
    total_requests: int
    hit_rate: str
    cached_items: int


class CacheNumbers(CacheStatistics, frozen=True, kw_only=True):
    collapsed: int
    bypassed: int
    stored: int
    shed: int
    store_failures: int


class CacheCounters:
    """`hits` include `collapsed`. `shed` counts answers too large or too late for the store, `store_failures` calls
    that raised or hung. Another tier made up for `tier_shed` and `tier_failures`."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.collapsed = 0
        self.bypassed = 0
        self.stored = 0
        self.shed = 0
        self.store_failures = 0
        self.tier_failures = 0
        self.tier_shed = 0

    def count(self, outcome: CacheOutcome) -> None:
        match outcome:
            case "hit":
                self.hits += 1
            case "collapsed":
                self.hits += 1
                self.collapsed += 1
            case "miss":
                self.misses += 1
            case "bypass":
                self.bypassed += 1

    def read(self, cached_items: int) -> CacheNumbers:
        total = self.hits + self.misses
        return CacheNumbers(
            hits=self.hits,
            misses=self.misses,
            total_requests=total,
            hit_rate=f"{100 * self.hits / total if total else 0:.1f}%",
            cached_items=cached_items,
            collapsed=self.collapsed,
            bypassed=self.bypassed,
            stored=self.stored,
            shed=self.shed + self.tier_shed,
            store_failures=self.store_failures + self.tier_failures,
        )


class KeyHits:
    def __init__(self, most: int = REMEMBERED_KEYS) -> None:
        self._most = most
        self._hits: OrderedDict[str, int] = OrderedDict()

    def count(self, key: str) -> None:
        self._hits[key] = self._hits.get(key, 0) + 1
        self._hits.move_to_end(key)
        if len(self._hits) > self._most:
            self._hits.popitem(last=False)

    def of(self, key: str) -> int:
        return self._hits.get(key, 0)

    def forget(self, key: str) -> None:
        self._hits.pop(key, None)

    def clear(self) -> None:
        self._hits.clear()
