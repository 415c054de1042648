"""What happened lately, in bounded memory: the last minutes as a timeline, the last latencies, the last requests.

The metrics count since the start; this is for people who look now, on the dashboard or in a terminal.
"""

import asyncio
import bisect
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from service.executor.base import ExecutorStatus
from service.telemetry.request_log import RequestRecord

SLOT_SECONDS = 5.0
SLOTS = 60
LATENCIES = 1000
RECENT = 50
SPEED_SECONDS = 5.0
SAMPLE_SECONDS = 1.0

Kind = Literal["hit", "collapsed", "miss", "bypass", "failed"]
KINDS: tuple[Kind, ...] = ("hit", "collapsed", "miss", "bypass", "failed")
# Upper bounds in seconds, three a decade from 0.1 ms; one more bucket counts what is longer.
BOUNDS = tuple(step * 10.0**decade for decade in range(-4, 3) for step in (1, 2, 5))
_LEFT = frozenset({"client_gone", "cancelled"})


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Slots of `slot_seconds`, oldest first; the last is still filling. `outcomes` counts requests by kind when they
    are accepted, and failed ones when they fail; `generated_tokens` counts tokens when they are generated."""

    slot_seconds: float
    outcomes: dict[Kind, list[int]]
    generated_tokens: list[float]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second of all running requests together, over the last seconds: of answers, and of prompts."""

    generated: float
    read: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """The last answers of one kind. `counts` are by `bounds_seconds`, and one more for what is longer."""

    answers: int
    median_seconds: float | None
    p95_seconds: float | None
    counts: list[int]


class RecentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`came` is in Unix seconds. There is no content of the request or its answer."""

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
        """`number` is the slot's time, in slots since the clock's zero."""
        self.number = number
        self.counts = dict.fromkeys(KINDS, 0)
        self.tokens = 0.0


class _Sample(msgspec.Struct, frozen=True):
    """Totals at `time`, of the clock in seconds. They only grow."""

    time: float
    generated: int
    read: int


class Activity:
    """Times are of `clock`. Each request is given to `accept` if it is accepted, and to `observe` when it has ended."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._latencies: dict[str, deque[float]] = {kind: deque(maxlen=LATENCIES) for kind in ("hit", "miss")}
        self._recent: deque[RequestRecord] = deque(maxlen=RECENT)
        self._counted = (0, 0)
        self._samples = deque([_Sample(clock(), 0, 0)])

    def accept(self, record: RequestRecord) -> None:
        """Sets the record's `accepted`. Its `outcome` must be known."""
        assert record.outcome is not None  # noqa: S101
        record.accepted = self._clock()
        self._slot(record.accepted).counts[record.outcome] += 1

    def observe(self, record: RequestRecord) -> None:
        self._recent.append(record)
        kind = kind_of(record)
        if kind == "failed":
            self._forget_acceptance(record)
            self._slot(record.started + record.total_seconds).counts["failed"] += 1
        elif kind in self._latencies and not record.error_code:
            self._latencies[kind].append(record.total_seconds)

    def _forget_acceptance(self, record: RequestRecord) -> None:
        if record.accepted is not None and record.outcome is not None:
            slot = self._slot(record.accepted)
            if slot.number == _number(record.accepted):
                slot.counts[record.outcome] -= 1

    def sample(self, status: ExecutorStatus) -> None:
        """Counts what was generated and read since the last sample. Call it at least every few seconds."""
        counted, now, last = (status.generated_tokens, status.read_tokens), self._clock(), self._samples[-1]
        # A count that has become smaller began again from zero, with a new engine.
        generated, read = (new - old if new >= old else new for new, old in zip(counted, self._counted, strict=True))
        self._counted = counted
        if generated:
            self._spread(generated, last.time, now)
        self._samples.append(_Sample(now, last.generated + generated, last.read + read))
        while len(self._samples) > 2 and self._samples[1].time <= now - SPEED_SECONDS:
            self._samples.popleft()

    def speed(self) -> Speed:
        first, last = self._samples[0], self._samples[-1]
        seconds = last.time - first.time
        if seconds <= 0:
            return Speed(generated=0.0, read=0.0)
        return Speed(
            generated=round((last.generated - first.generated) / seconds, 2),
            read=round((last.read - first.read) / seconds, 2),
        )

    def timeline(self) -> Timeline:
        last = _number(self._clock())
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

    def _slot(self, at: float) -> _Slot:
        """The slot of that time, or the one that has taken its place since."""
        number = _number(at)
        slot = self._slots[number % SLOTS]
        if slot.number < number:
            slot.clear(number)
        return slot

    def _spread(self, tokens: int, began: float, ended: float) -> None:
        last = _number(ended)
        first = max(_number(began), last - SLOTS + 1)
        if first >= last:
            self._slot(ended).tokens += tokens
            return
        rate = tokens / (ended - began)
        for number in range(first, last + 1):
            opens = number * SLOT_SECONDS
            self._slot(opens).tokens += rate * (min(ended, opens + SLOT_SECONDS) - max(began, opens))


async def keep_sampling(activity: Activity, status: Callable[[], ExecutorStatus]) -> None:
    """Until it is cancelled."""
    while True:
        activity.sample(status())
        await asyncio.sleep(SAMPLE_SECONDS)


def _number(at: float) -> int:
    return int(at // SLOT_SECONDS)


def kind_of(record: RequestRecord) -> Kind | None:
    """A client that leaves is no failure. None if it left before its request was accepted."""
    if record.error_code and record.error_code not in _LEFT:
        return "failed"
    return record.outcome


def quantile(ordered: list[float], share: float) -> float | None:
    """The nearest rank, which is one of the values; None if there are none."""
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
