"""The last minutes: each request and token is counted once, at its time, and memory is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executor.base import ExecutorStatus
from service.generation import Completion, Usage
from service.response_cache.base import CacheOutcome, StoredAnswer
from service.telemetry.activity import BOUNDS, LATENCIES, RECENT, Activity, kind_of, quantile
from service.telemetry.request_log import RequestRecord
from service.telemetry.speed import Speed
from service.telemetry.timeline import SLOT_SECONDS, SLOTS

NOW = 10_000.0
USAGE = Usage(prompt_tokens=5, completion_tokens=3)
ANSWER = StoredAnswer(Completion(choices=(), usage=USAGE), "miss")


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


def generated(tokens: int, read: int = 0) -> ExecutorStatus:
    return ExecutorStatus(state="healthy", generated_tokens=tokens, read_tokens=read)


def counts(activity: Activity) -> dict[str, int]:
    return {kind: sum(slots) for kind, slots in activity.timeline().outcomes.items() if any(slots)}


def test_the_timeline_moves_on_and_forgets() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.accept(ended(NOW, "hit"), ANSWER)
    assert activity.timeline().outcomes["hit"] == [0] * (SLOTS - 1) + [1]
    clock.now += SLOT_SECONDS * 3
    activity.accept(ended(clock.now, "hit"), ANSWER)
    assert activity.timeline().outcomes["hit"] == [0] * (SLOTS - 4) + [1, 0, 0, 1]
    clock.now += SLOT_SECONDS * (SLOTS - 1)
    assert activity.timeline().outcomes["hit"] == [1] + [0] * (SLOTS - 1)
    clock.now += SLOT_SECONDS
    assert counts(activity) == {}


def test_a_request_is_counted_from_its_acceptance_and_once() -> None:
    activity = Activity(Clock())
    going_well, failing, refused = ended(NOW), ended(NOW, error="engine_failed"), ended(NOW, None, error="invalid_json")
    activity.accept(going_well, ANSWER)
    activity.accept(failing, ANSWER)
    assert counts(activity) == {"miss": 2}
    for record in (going_well, failing, refused):
        activity.observe(record)
    assert counts(activity) == {"miss": 1, "failed": 2}


def test_a_failure_takes_back_each_prompt_of_its_body() -> None:
    activity, failing = Activity(Clock()), ended(NOW, error="engine_failed")
    for outcome in ("hit", "miss", "miss"):
        failing.outcome = outcome
        activity.accept(failing, ANSWER)
    assert counts(activity) == {"hit": 1, "miss": 2}
    activity.observe(failing)
    assert counts(activity) == {"failed": 1}


def test_a_failure_long_after_its_acceptance_takes_nothing_from_a_later_request() -> None:
    clock = Clock()
    activity, failing = Activity(clock), ended(NOW, error="engine_failed")
    activity.accept(failing, ANSWER)
    clock.now += SLOT_SECONDS * SLOTS
    activity.accept(ended(clock.now), ANSWER)
    failing.total_seconds = SLOT_SECONDS * SLOTS
    activity.observe(failing)
    assert counts(activity) == {"miss": 1, "failed": 1}


def test_speed_is_of_the_last_seconds() -> None:
    clock = Clock()
    activity = Activity(clock)
    assert activity.speed() == Speed(generated=0.0, read=0.0)
    activity.sample(generated(0, 0))
    for second in range(1, 11):
        clock.now = NOW + 100 + second
        activity.sample(generated(20 * second, 300 * second))
    assert activity.speed() == Speed(generated=20.0, read=300.0)
    for second in range(1, 11):
        clock.now = NOW + 110 + second
        activity.sample(generated(200, 3000))
    assert activity.speed() == Speed(generated=0.0, read=0.0)


def test_counts_that_begin_again_with_a_new_engine_are_new_tokens() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.sample(generated(50))
    clock.now += 1.0
    activity.sample(generated(8))
    assert sum(activity.timeline().generated_tokens) == 58
    assert activity.speed().generated == 58.0


def test_tokens_are_spread_over_the_time_since_the_last_sample() -> None:
    clock = Clock()
    activity = Activity(clock)
    clock.now = NOW + 2.5
    activity.sample(generated(40))
    assert activity.timeline().generated_tokens[-1:] == [40.0]
    clock.now = NOW + 12.5
    activity.sample(generated(80))
    assert activity.timeline().generated_tokens[-3:] == [50.0, 20.0, 10.0]


@given(
    gaps=st.lists(st.floats(0, SLOT_SECONDS * 3), min_size=1, max_size=18),
    tokens=st.lists(st.integers(0, 10_000), min_size=18, max_size=18),
)
def test_no_token_is_lost_between_samples(gaps: list[float], tokens: list[int]) -> None:
    clock, total = Clock(), 0
    activity = Activity(clock)
    for gap, new in zip(gaps, tokens, strict=False):
        clock.now, total = clock.now + gap, total + new
        activity.sample(generated(total))
    assert sum(activity.timeline().generated_tokens) == pytest.approx(total, abs=0.01 * SLOTS)


def test_a_gap_longer_than_the_timeline_fills_it_evenly() -> None:
    clock = Clock()
    activity = Activity(clock)
    clock.now += 10_004.999
    activity.sample(generated(10_000))
    assert activity.timeline().generated_tokens == pytest.approx([5.0] * SLOTS, abs=0.1)


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


def test_running_requests_are_those_that_were_accepted_and_have_not_ended() -> None:
    clock = Clock()
    activity = Activity(clock)
    first, second, hit = ended(NOW), ended(NOW, "collapsed"), ended(NOW, "hit")
    for record in (first, second, hit):
        activity.accept(record, ANSWER)
    assert [request.outcome for request in activity.running()] == ["miss", "collapsed"]
    activity.observe(first)
    (left,) = activity.running()
    assert (left.outcome, left.prompt_tokens, left.written) == ("collapsed", 5, 3)
