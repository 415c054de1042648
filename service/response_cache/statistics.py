"""How well the response cache does: `hits + misses = total_requests`."""

import msgspec

from service.response_cache.base import CacheOutcome


class CacheStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What `/health` shows. Requests that were not looked up (`no-cache`, `no-store`, the policy) are not counted, nor
    those that were refused; one that joined a generation in flight is a hit. `cached_items` is what the store told
    last."""

    hits: int
    misses: int
    total_requests: int
    hit_rate: str
    cached_items: int


class CacheNumbers(CacheStatistics, frozen=True, kw_only=True):
    """What `/stats` shows: all of it at one moment. `CacheCounters` says what the counts are."""

    collapsed: int
    bypassed: int
    stored: int
    store_failures: int


class CacheCounters:
    """Counts since the start, of requests that were accepted. `collapsed` are among the hits; `store_failures` are
    calls of the store that raised or hung, none of which cost anybody an answer."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.collapsed = 0
        self.bypassed = 0
        self.stored = 0
        self.store_failures = 0

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
            store_failures=self.store_failures,
        )
