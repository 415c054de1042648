"""The promises of leases and of the response cache, checked in a history."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import msgspec

from tests.history.records import Asked, LeaseCall


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


def late_answers(asked: Iterable[Asked], stops: Sequence[tuple[int, float, float]], most_seconds: float) -> list[Asked]:
    """Requests that took longer, except those whose own worker was stopped (`stops`: worker, begin, end)."""
    return [
        one
        for one in asked
        if one.returned - one.called > most_seconds
        and not any(worker == one.worker and one.called < end and begin < one.returned for worker, begin, end in stops)
    ]
