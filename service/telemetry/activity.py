import asyncio
import bisect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from service.executor.base import ExecutorStatus
from service.response_cache.base import CachedAnswer, CacheOutcome
from service.telemetry.request_log import RequestRecord
from service.telemetry.speed import Speed, SpeedMeter
from service.telemetry.timeline import Kind, Timeline, TimelineSlots

LATENCIES = 1000
RECENT = 50
SAMPLE_SECONDS = 1.0

# Upper bounds in seconds, three a decade from 0.1 ms. One more bucket counts longer times.
BOUNDS = tuple(step * 10.0**decade for decade in range(-4, 3) for step in (1, 2, 5))
_LEFT = frozenset({"client_gone", "cancelled"})


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """`counts` has one more item than `bounds_seconds`, for longer answers."""

    answers: int
    median_seconds: float | None
    p95_seconds: float | None
    counts: list[int]


class RecentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`came` is in Unix seconds. `retry` counts the client's tries before this one. `reread`: why the prompt was read
    again. Holds no content."""

    request_id: str
    came: float
    dialect: str
    status: int
    stream: bool
    outcome: str | None
    error: str
    retry: int = 0
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    first_event_seconds: float | None
    total_seconds: float
    reread: str = ""


class RunningRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`came` is in Unix seconds. `read_tokens` of the prompt are read, None while the request waits or if the executor
    does not know. `written` is about the number of answer tokens. Holds no content."""

    request_id: str
    came: float
    dialect: str
    stream: bool
    outcome: CacheOutcome
    prompt_tokens: int
    read_tokens: int | None = None
    written: int


class Activity:
    """Times come from `clock`. Call `accept` for each accepted request, and `observe` for each that has ended."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._slots = TimelineSlots(clock)
        self._meter = SpeedMeter(clock())
        self._latencies: dict[str, deque[float]] = {kind: deque(maxlen=LATENCIES) for kind in ("hit", "miss")}
        # By the identity of the record. Hits end at once and are left out.
        self._running: dict[int, tuple[RequestRecord, CachedAnswer]] = {}
        self._recent: deque[RequestRecord] = deque(maxlen=RECENT)
        self.unread_media = 0

    def accept(self, record: RequestRecord, answer: CachedAnswer) -> None:
        """The record's `outcome` must be set. Call it again for each further prompt of the body."""
        assert record.outcome is not None  # noqa: S101
        now = self._clock()
        record.counted.append((record.outcome, now))
        self._slots.count(record.outcome, now)
        if record.outcome != "hit":
            self._running[id(record)] = record, answer

    def observe(self, record: RequestRecord) -> None:
        self._running.pop(id(record), None)
        self._recent.append(record)
        self.unread_media += record.unread_media
        kind = kind_of(record)
        if kind == "failed":
            for outcome, accepted in record.counted:
                self._slots.uncount(outcome, accepted)
            self._slots.count("failed", record.started + record.total_seconds)
        elif kind in self._latencies and not record.error_code:
            self._latencies[kind].append(record.total_seconds)

    def sample(self, status: ExecutorStatus) -> None:
        """Counts tokens since the last sample. Call it every few seconds."""
        now, before = self._clock(), self._meter.sampled_at
        generated = self._meter.sample(now, status.generated_tokens, status.read_tokens)
        if generated:
            self._slots.add_tokens(generated, before, now)

    def speed(self) -> Speed:
        return self._meter.speed()

    def timeline(self) -> Timeline:
        return self._slots.read()

    def latency(self, kind: Literal["hit", "miss"]) -> Latency:
        seconds = sorted(self._latencies[kind])
        return Latency(
            answers=len(seconds),
            median_seconds=quantile(seconds, 0.5),
            p95_seconds=quantile(seconds, 0.95),
            counts=_histogram(seconds),
        )

    def running(self) -> list[RunningRequest]:
        epoch = time.time() - self._clock()
        return [_running_request(record, answer, epoch) for record, answer in self._running.values()]

    def recent(self) -> list[RecentRequest]:
        """Newest first."""
        epoch = time.time() - self._clock()
        return [_recent_request(record, epoch) for record in reversed(self._recent)]


async def keep_sampling(activity: Activity, status: Callable[[], ExecutorStatus]) -> None:
    while True:
        activity.sample(status())
        await asyncio.sleep(SAMPLE_SECONDS)


def kind_of(record: RequestRecord) -> Kind | None:
    """A disconnect is not a failure. None if the client left before its request was accepted."""
    if record.error_code and record.error_code not in _LEFT:
        return "failed"
    return record.outcome


def quantile(ordered: list[float], share: float) -> float | None:
    """The value of the nearest rank; None for an empty list."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _histogram(seconds: Iterable[float]) -> list[int]:
    counts = [0] * (len(BOUNDS) + 1)
    for value in seconds:
        counts[bisect.bisect_left(BOUNDS, value)] += 1
    return counts


def _running_request(record: RequestRecord, answer: CachedAnswer, epoch: float) -> RunningRequest:
    assert record.outcome is not None  # noqa: S101 - `accept` requires it
    return RunningRequest(
        request_id=record.request_id,
        came=round(epoch + record.started, 3),
        dialect=record.dialect,
        stream=record.stream,
        outcome=record.outcome,
        prompt_tokens=answer.prompt_tokens,
        read_tokens=answer.read_tokens,
        written=answer.written,
    )


def _recent_request(record: RequestRecord, epoch: float) -> RecentRequest:
    usage = record.usage
    return RecentRequest(
        request_id=record.request_id,
        came=round(epoch + record.started, 3),
        dialect=record.dialect,
        status=record.status,
        stream=record.stream,
        outcome=record.outcome,
        error=record.error_code,
        retry=record.retry,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        reread=record.reread,
        first_event_seconds=record.first_event_seconds,
        total_seconds=record.total_seconds,
    )
