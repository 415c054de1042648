"""What is remembered of the last minutes: counted where it belongs, spread over its time, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.generation import Usage
from service.response_cache.base import CacheOutcome
from service.telemetry.activity import BOUNDS, LATENCIES, RECENT, SLOT_SECONDS, SLOTS, Activity, kind_of, quantile
from service.telemetry.request_log import RequestRecord

NOW = 10_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def ended(
    at: float, outcome: CacheOutcome | None = "miss", *, seconds: float = 0.0, tokens: int = 0, error: str = ""
) -> RequestRecord:
    usage = Usage(prompt_tokens=1, completion_tokens=tokens) if tokens else None
    return RequestRecord(
        request_id="req_1",
        dialect="openai_chat",
        started=at - seconds,
        total_seconds=seconds,
        outcome=outcome,
        usage=usage,
        error_code=error,
    )


@pytest.mark.parametrize(
    ("outcome", "error", "kind"),
    [
        ("hit", "", "hit"),
        ("collapsed", "", "collapsed"),
        ("miss", "", "miss"),
        ("bypass", "", "bypass"),
        ("miss", "engine_failed", "failed"),
        (None, "invalid_json", "failed"),
        ("miss", "client_gone", "miss"),
        (None, "cancelled", None),
    ],
)
def test_kind(outcome: CacheOutcome | None, error: str, kind: str | None) -> None:
    assert kind_of(ended(NOW, outcome, error=error)) == kind


def test_the_timeline_moves_on_and_forgets() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.observe(ended(NOW, "hit"))
    assert activity.timeline().outcomes["hit"] == [0] * (SLOTS - 1) + [1]
    clock.now += SLOT_SECONDS * 3
    activity.observe(ended(clock.now, "hit"))
    assert activity.timeline().outcomes["hit"] == [0] * (SLOTS - 4) + [1, 0, 0, 1]
    clock.now += SLOT_SECONDS * (SLOTS - 1)
    assert activity.timeline().outcomes["hit"] == [1] + [0] * (SLOTS - 1)
    clock.now += SLOT_SECONDS
    assert sum(activity.timeline().outcomes["hit"]) == 0


def test_tokens_are_spread_over_the_time_of_their_generation() -> None:
    activity = Activity(Clock())
    activity.observe(ended(NOW + 2.5, seconds=10.0, tokens=40))
    assert activity.timeline().generated_tokens[-3:] == [10.0, 20.0, 10.0]


@given(
    at=st.floats(NOW, NOW + 4.9),
    seconds=st.floats(0, SLOT_SECONDS * (SLOTS - 1)),
    tokens=st.integers(1, 100_000),
)
def test_no_token_is_lost_in_the_spreading(at: float, seconds: float, tokens: int) -> None:
    activity = Activity(Clock())
    activity.observe(ended(at, seconds=seconds, tokens=tokens))
    assert sum(activity.timeline().generated_tokens) == pytest.approx(tokens, abs=0.01 * SLOTS)


def test_an_answer_longer_than_the_timeline_fills_it_evenly() -> None:
    activity = Activity(Clock())
    activity.observe(ended(NOW + 4.999, seconds=10_000.0, tokens=10_000))
    assert activity.timeline().generated_tokens == pytest.approx([5.0] * SLOTS, abs=0.1)


@pytest.mark.parametrize("outcome", ["hit", "collapsed"])
def test_what_was_not_generated_now_adds_no_tokens(outcome: CacheOutcome) -> None:
    activity = Activity(Clock())
    activity.observe(ended(NOW, outcome, tokens=9))
    assert sum(activity.timeline().generated_tokens) == 0


def test_latency_is_of_the_last_answers_that_went_well() -> None:
    activity = Activity(Clock())
    for _ in range(5):
        activity.observe(ended(NOW, "miss", seconds=50.0))
    for milliseconds in range(LATENCIES):
        activity.observe(ended(NOW, "miss", seconds=milliseconds / 1e3))
    activity.observe(ended(NOW, "miss", seconds=600.0, error="engine_failed"))
    latency = activity.latency("miss")
    assert latency.answers == sum(latency.counts) == LATENCIES
    assert (latency.median_seconds, latency.p95_seconds) == (0.499, 0.949)
    assert activity.latency("hit").median_seconds is None


@pytest.mark.parametrize(("seconds", "bin_index"), [(0.0, 0), (0.0001, 0), (0.00011, 1), (500.0, 20), (501.0, 21)])
def test_histogram_bins_hold_their_upper_bound(seconds: float, bin_index: int) -> None:
    activity = Activity(Clock())
    activity.observe(ended(NOW, "hit", seconds=seconds))
    assert activity.latency("hit").counts.index(1) == bin_index
    assert len(activity.latency("hit").counts) == len(BOUNDS) + 1


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_was_seen_and_has_its_share_below(values: list[float], share: float) -> None:
    found = quantile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_recent_requests_are_bounded_and_newest_first() -> None:
    clock = Clock()
    activity = Activity(clock)
    for index in range(RECENT + 5):
        record = ended(NOW, "hit", tokens=index + 1)
        record.request_id = f"req_{index}"
        activity.observe(record)
    recent = activity.recent()
    assert [request.request_id for request in recent] == [f"req_{index}" for index in range(RECENT + 4, 4, -1)]
    assert recent[0].completion_tokens == RECENT + 5
