"""The promises of leases and of the response cache, checked in a history."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import msgspec

from tests.history.records import Asked, LeaseCall, Silence


class Interval(msgspec.Struct, frozen=True):
    holder: str
    begin: float
    end: float

    def meets(self, begin: float, end: float) -> bool:
        return self.begin < end and begin < self.end


def expected_answer(question: str) -> str:
    return f"the answer to {question}"


def double_holders(calls: Iterable[LeaseCall]) -> list[tuple[str, Interval, Interval]]:
    """Pairs of holders that certainly had the lease of one key at the same time."""
    by_key: dict[str, list[LeaseCall]] = {}
    for call in calls:
        by_key.setdefault(call.key, []).append(call)
    return [
        (key, one, other)
        for key, of_key in by_key.items()
        for one, other in combinations(_certain(of_key), 2)
        if one.holder != other.holder and one.meets(other.begin, other.end)
    ]


def _certain(calls: Sequence[LeaseCall]) -> Iterator[Interval]:
    # Redis began to count the ttl between call and return, so the lease is certain from the return until a ttl after
    # the call, unless its holder released it.
    released = {call.holder: call.called for call in calls if call.what == "release"}
    for call in calls:
        end = min(call.called + call.ttl, released.get(call.holder, float("inf")))
        if call.held and call.returned < end:
            yield Interval(call.holder, call.returned, end)


def wrong_answers(asked: Iterable[Asked]) -> list[Asked]:
    return [one for one in asked if one.text is not None and one.text != expected_answer(one.question)]


def late_answers(
    asked: Iterable[Asked], stops: Sequence[Silence], silences: Iterable[Silence], most_seconds: float
) -> list[Asked]:
    """Requests that took longer than `most_seconds` and the time in which any worker had no core. Those whose own
    worker was stopped are left out."""
    without_core = [_behind_stops(silence, stops) for silence in silences]
    return [
        one
        for one in asked
        if one.returned - one.called > most_seconds + _seconds_within(without_core, one.called, one.returned)
        and not any(stop.worker == one.worker and stop.meets(one.called, one.returned) for stop in stops)
    ]


def _behind_stops(silence: Silence, stops: Iterable[Silence]) -> tuple[float, float]:
    """A worker that is stopped has no core either, but that is a fault, which the bound counts already."""
    ends = [stop.end for stop in stops if stop.worker == silence.worker and stop.meets(silence.begin, silence.end)]
    return max([silence.begin, *ends]), silence.end


def _seconds_within(intervals: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """Of all intervals together, each moment once."""
    seconds, counted = 0.0, begin
    for start, stop in sorted(intervals):
        start, stop = max(start, counted), min(stop, end)
        if start < stop:
            seconds += stop - start
            counted = stop
    return seconds
