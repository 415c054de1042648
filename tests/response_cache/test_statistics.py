"""The figures of `/health`."""

import msgspec
import pytest

from service.response_cache.base import CacheOutcome
from service.response_cache.statistics import CacheCounters, CacheNumbers, KeyHits

NOTHING = CacheNumbers(
    hits=0,
    misses=0,
    total_requests=0,
    hit_rate="0.0%",
    cached_items=0,
    collapsed=0,
    bypassed=0,
    stored=0,
    shed=0,
    store_failures=0,
)


@pytest.mark.parametrize(
    ("hits", "misses", "rate"),
    [(0, 0, "0.0%"), (0, 5, "0.0%"), (1, 1, "50.0%"), (42, 8, "84.0%"), (1, 2, "33.3%"), (7, 0, "100.0%")],
)
def test_the_hit_rate(hits: int, misses: int, rate: str) -> None:
    counters = CacheCounters()
    counters.hits, counters.misses = hits, misses
    statistics = counters.read(cached_items=3)
    assert statistics.hit_rate == rate
    assert statistics.total_requests == hits + misses
    assert statistics.cached_items == 3


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        ("hit", {"hits": 2, "total_requests": 2, "hit_rate": "100.0%"}),
        ("collapsed", {"hits": 2, "collapsed": 2, "total_requests": 2, "hit_rate": "100.0%"}),
        ("miss", {"misses": 2, "total_requests": 2}),
        ("bypass", {"bypassed": 2}),
    ],
)
def test_each_outcome_has_its_counts(outcome: CacheOutcome, counts: dict[str, object]) -> None:
    counters = CacheCounters()
    assert counters.read(0) == NOTHING
    for _ in range(2):
        counters.count(outcome)
    assert counters.read(0) == msgspec.structs.replace(NOTHING, **counts)


def test_counts_of_the_store_are_reported() -> None:
    counters = CacheCounters()
    counters.stored, counters.shed, counters.store_failures = 1, 2, 3
    assert counters.read(0) == msgspec.structs.replace(NOTHING, stored=1, shed=2, store_failures=3)


def test_hits_are_counted_by_key_until_they_are_forgotten() -> None:
    hits = KeyHits()
    for key in ("a", "b", "a"):
        hits.count(key)
    assert [hits.of(key) for key in "abc"] == [2, 1, 0]
    hits.forget("a")
    hits.forget("c")
    assert [hits.of(key) for key in "abc"] == [0, 1, 0]
    hits.clear()
    assert hits.of("b") == 0


def test_the_keys_with_the_oldest_hits_are_forgotten_first() -> None:
    hits = KeyHits(most=2)
    for key in ("a", "b", "a", "c"):
        hits.count(key)
    assert [hits.of(key) for key in "abc"] == [2, 0, 1]
