"""Chooses how many sequences run at the same time if `maxConcurrency` is `auto`."""

from collections import deque
from collections.abc import Mapping

FEWEST = 2

# This many run before anything is measured, so that a few sub-agents start together.
FIRST = 4

# Twice as many sequences have to raise the tokens per second of all by this factor, and to leave each one this share
# of the tokens per second that it has alone, or with the fewest others if none has run alone yet.
LEAST_GAIN = 1.05
LEAST_SHARE = 0.25

# A rate counts after this many steps, and is that of the last four times as many.
MEASURED_STEPS = 16

# A number that did not pay is tried again after this many steps: rates change with the lengths of contexts.
RETRY_STEPS = 4096


def useful_places(rates: Mapping[int, float], most: int) -> int:
    """`rates` are tokens per second of all sequences together, by their number. Doubles while that pays. A number that
    was not measured is tried if the one before it was."""
    places = min(FEWEST, most)
    while places < most:
        wider = min(2 * places, most)
        untried = wider not in rates and wider > FIRST and places not in rates
        if untried or not _pays(rates, places, wider):
            break
        places = wider
    return places


def _pays(rates: Mapping[int, float], places: int, wider: int) -> bool:
    if wider not in rates:
        return True
    gains = rates[wider] >= LEAST_GAIN * rates.get(places, 0.0)
    fastest = max(rate / number for number, rate in rates.items())
    return gains and rates[wider] / wider >= LEAST_SHARE * fastest


class Places:
    """`number` sequences may run: at most `most`, always as many unless it `adapts` to measured rates."""

    def __init__(self, most: int, *, adapts: bool = False) -> None:
        self._most = most
        self._adapts = adapts
        self._paces: dict[int, _Pace] = {}
        self._steps_at_limit = 0
        self.number = useful_places({}, most) if adapts else most

    def __repr__(self) -> str:
        return f"<Places {self.number} of {self._most}, measured {sorted(self._rates())}>"

    def learn(self, running: int, tokens: int, seconds: float) -> None:
        """Takes in a step in which `running` sequences drew `tokens` and no prompt was read."""
        if not self._adapts or seconds <= 0:
            return
        self._paces.setdefault(running, _Pace()).add(tokens, seconds)
        self._steps_at_limit += running == self.number
        if self._steps_at_limit >= RETRY_STEPS:
            self._steps_at_limit = 0
            self._paces.pop(2 * self.number, None)
        self.number = useful_places(self._rates(), self._most)

    def _rates(self) -> dict[int, float]:
        return {number: pace.rate for number, pace in self._paces.items() if pace.steps >= MEASURED_STEPS}


class _Pace:
    """Steps that drew equally many tokens count as the fastest: other work only slows a step down."""

    __slots__ = ("_last", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self._last: deque[tuple[int, float]] = deque(maxlen=4 * MEASURED_STEPS)

    @property
    def rate(self) -> float:
        fastest: dict[int, float] = {}
        for tokens, seconds in self._last:
            fastest[tokens] = min(seconds, fastest.get(tokens, seconds))
        return sum(tokens for tokens, _ in self._last) / sum(fastest[tokens] for tokens, _ in self._last)

    def add(self, tokens: int, seconds: float) -> None:
        self.steps += 1
        self._last.append((tokens, seconds))
