"""What happened lately, in bounded memory: the last minutes as a timeline, the last latencies, the last requests.

Counts since the start are the metrics' matter; this is for people who look now, on the dashboard or in a terminal.
"""

import bisect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from service.telemetry.request_log import RequestRecord

SLOT_SECONDS = 5.0
SLOTS = 60
LATENCIES = 1000
RECENT = 50

Kind = Literal["hit", "collapsed", "miss", "bypass", "failed"]
KINDS: tuple[Kind, ...] = ("hit", "collapsed", "miss", "bypass", "failed")
# Upper bounds in seconds, three a decade from 0.1 ms; what is longer counts in one more bucket.
BOUNDS = tuple(step * 10.0**decade for decade in range(-4, 3) for step in (1, 2, 5))
_LEFT = frozenset({"client_gone", "cancelled"})


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Slots of `slot_seconds`, oldest first; the last is still filling. `outcomes` counts requests by kind;
    `generated_tokens` are of answers that were generated, spread over the time that it took."""

    slot_seconds: float
    outcomes: dict[Kind, list[int]]
    generated_tokens: list[float]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of the last answers of one kind. `counts` are by `bounds_seconds`, and one more for what is longer."""

    answers: int
    median_seconds: float | None
    p95_seconds: float | None
    counts: list[int]


class RecentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`came` is in Unix seconds. Nothing of what was asked or answered."""

    request_id: str
    came: float
    dialect: str
    status: int
    stream: bool
    outcome: str | None
    error: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    first_event_seconds: float | None
    total_seconds: float


class _Slot:
    __slots__ = ("counts", "number", "tokens")

    def __init__(self) -> None:
        self.clear(-1)

    def clear(self, number: int) -> None:
        """`number` is the time of the slot, in slots since the clock's zero."""
        self.number = number
        self.counts = dict.fromkeys(KINDS, 0)
        self.tokens = 0.0


class Activity:
    """`observe` is called with every finished request; its times are of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._latencies: dict[str, deque[float]] = {kind: deque(maxlen=LATENCIES) for kind in ("hit", "miss")}
        self._recent: deque[RequestRecord] = deque(maxlen=RECENT)

    def observe(self, record: RequestRecord) -> None:
        self._recent.append(record)
        kind = kind_of(record)
        ended = record.started + record.total_seconds
        if kind is not None:
            self._slot(int(ended // SLOT_SECONDS)).counts[kind] += 1
        if kind in self._latencies and not record.error_code:
            self._latencies[kind].append(record.total_seconds)
        if record.usage is not None and record.outcome in ("miss", "bypass"):
            began = record.started + (record.first_event_seconds or 0.0)
            self._spread(record.usage.completion_tokens, began, ended)

    def timeline(self) -> Timeline:
        last = int(self._clock() // SLOT_SECONDS)
        slots = [self._slots[number % SLOTS] for number in range(last - SLOTS + 1, last + 1)]
        shown = [slot if last - SLOTS < slot.number <= last else _Slot() for slot in slots]
        return Timeline(
            slot_seconds=SLOT_SECONDS,
            outcomes={kind: [slot.counts[kind] for slot in shown] for kind in KINDS},
            generated_tokens=[round(slot.tokens, 2) for slot in shown],
        )

    def latency(self, kind: Literal["hit", "miss"]) -> Latency:
        seconds = sorted(self._latencies[kind])
        return Latency(
            answers=len(seconds),
            median_seconds=quantile(seconds, 0.5),
            p95_seconds=quantile(seconds, 0.95),
            counts=_histogram(seconds),
        )

    def recent(self) -> list[RecentRequest]:
        """Newest first."""
        epoch = time.time() - self._clock()
        return [_recent_request(record, epoch) for record in reversed(self._recent)]

    def _slot(self, number: int) -> _Slot:
        slot = self._slots[number % SLOTS]
        if slot.number < number:
            slot.clear(number)
        return slot

    def _spread(self, tokens: int, began: float, ended: float) -> None:
        """Tokens are known when their answer ends: without this, each long answer would be a spike at its end."""
        last = int(ended // SLOT_SECONDS)
        first = max(int(began // SLOT_SECONDS), last - SLOTS + 1)
        if first >= last:
            self._slot(last).tokens += tokens
            return
        rate = tokens / (ended - began)
        for number in range(first, last + 1):
            opens = number * SLOT_SECONDS
            self._slot(number).tokens += rate * (min(ended, opens + SLOT_SECONDS) - max(began, opens))


def kind_of(record: RequestRecord) -> Kind | None:
    """A client that leaves is no failure; None where it left before anything was known."""
    if record.error_code and record.error_code not in _LEFT:
        return "failed"
    return record.outcome


def quantile(ordered: list[float], share: float) -> float | None:
    """The nearest rank: a latency that was really seen. None of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _histogram(seconds: Iterable[float]) -> list[int]:
    counts = [0] * (len(BOUNDS) + 1)
    for value in seconds:
        counts[bisect.bisect_left(BOUNDS, value)] += 1
    return counts


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
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        first_event_seconds=record.first_event_seconds,
        total_seconds=record.total_seconds,
    )
