from collections.abc import Callable
from typing import Literal

import msgspec

SLOT_SECONDS = 5.0
SLOTS = 60

Kind = Literal["hit", "collapsed", "miss", "bypass", "failed"]
KINDS: tuple[Kind, ...] = ("hit", "collapsed", "miss", "bypass", "failed")


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Slots of `slot_seconds`, oldest first; the last is still filling. `outcomes` counts accepted requests by kind,
    and failures when they happen."""

    slot_seconds: float
    outcomes: dict[Kind, list[int]]
    generated_tokens: list[float]


class _Slot:
    __slots__ = ("counts", "number", "tokens")

    def __init__(self) -> None:
        self.clear(-1)

    def clear(self, number: int) -> None:
        """`number` is the slot's start, in slots since the clock's zero."""
        self.number = number
        self.counts = dict.fromkeys(KINDS, 0)
        self.tokens = 0.0


class TimelineSlots:
    """A ring of slots. Times are in seconds of `clock`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots = [_Slot() for _ in range(SLOTS)]

    def count(self, kind: Kind, at: float) -> None:
        self._slot(at).counts[kind] += 1

    def uncount(self, kind: Kind, at: float) -> None:
        slot = self._slot(at)
        if slot.number == _number(at):
            slot.counts[kind] -= 1

    def add_tokens(self, tokens: int, began: float, ended: float) -> None:
        last = _number(ended)
        first = max(_number(began), last - SLOTS + 1)
        if first >= last:
            self._slot(ended).tokens += tokens
            return
        rate = tokens / (ended - began)
        for number in range(first, last + 1):
            opens = number * SLOT_SECONDS
            self._slot(opens).tokens += rate * (min(ended, opens + SLOT_SECONDS) - max(began, opens))

    def read(self) -> Timeline:
        last = _number(self._clock())
        slots = [self._slots[number % SLOTS] for number in range(last - SLOTS + 1, last + 1)]
        shown = [slot if last - SLOTS < slot.number <= last else _Slot() for slot in slots]
        return Timeline(
            slot_seconds=SLOT_SECONDS,
            outcomes={kind: [slot.counts[kind] for slot in shown] for kind in KINDS},
            generated_tokens=[round(slot.tokens, 2) for slot in shown],
        )

    def _slot(self, at: float) -> _Slot:
        number = _number(at)
        slot = self._slots[number % SLOTS]
        if slot.number < number:
            slot.clear(number)
        return slot


def _number(at: float) -> int:
    return int(at // SLOT_SECONDS)
