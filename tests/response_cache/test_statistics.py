"""The figures of `/health`."""

import pytest

from service.response_cache.statistics import CacheCounters


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
