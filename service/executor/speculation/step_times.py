"""Decides by measured times how many tokens are worth guessing."""

from collections.abc import Mapping

# A time counts after this many steps.
MEASURED_STEPS = 8

# After this many guesses, two steps without one follow: their time changes with the machine's load.
GUESSES_IN_A_ROW = 256

# The share of the last step in an average. A step that took longer than twice the average counts as twice the average:
# the machine did something else.
NEWEST = 0.1
MOST_OVER_AVERAGE = 2.0

# Guesses have to be this much faster, so that an error of measurement costs nothing.
LEAST_GAIN = 1.02


def useful_guess(seconds: Mapping[int, float], most: int, right: float) -> int:
    """Returns how many tokens, up to `most`, give the most tokens per second; 0 if guessing does not pay. `seconds` are
    those of a step by the number of guessed tokens, a power of two, or 0 without a guess. `right` is the share of
    guessed tokens that are right. Guesses that were not measured count as fast as the longest shorter one."""
    if 0 not in seconds:
        return most
    best, fastest = 0, LEAST_GAIN / seconds[0]
    known = seconds[0]
    for size in _sizes(most):
        known = seconds.get(size, known)
        rate = _expected_tokens(size, right) / known
        if rate > fastest:
            best, fastest = size, rate
    return best


def _sizes(most: int) -> list[int]:
    return sorted({most, *(1 << power for power in range(most.bit_length()))})


def _expected_tokens(guessed: int, right: float) -> float:
    return (1 - right ** (guessed + 1)) / (1 - right) if right < 1 else guessed + 1.0


class StepTimes:
    """Averages over the steps of all sequences. `kind` names the drafter: some take time themselves."""

    def __init__(self) -> None:
        self._plain = _Average()
        self._guessed: dict[str, dict[int, _Average]] = {}
        self._guesses_in_a_row = 0

    def learn_plain(self, seconds: float) -> None:
        self._guesses_in_a_row = 0
        self._plain.add(seconds)

    def learn_guess(self, kind: str, guessed: int, seconds: float) -> None:
        self._guesses_in_a_row += 1
        sizes = self._guessed.setdefault(kind, {})
        sizes.setdefault(_bucket(guessed), _Average()).add(seconds)

    def excess(self, seconds: float) -> float:
        """Returns the seconds beyond those of a step without a guess."""
        return max(0.0, seconds - self._plain.seconds)

    def useful_guess(self, kind: str, most: int, right: float, *, untimed: int | None = None) -> int:
        """Returns at most `untimed` tokens, if given, as long as no guess of more was timed; 0 until a step without a
        guess is timed, if that is missing or too long ago."""
        averages = {0: self._plain, **self._guessed.get(kind, {})}
        known = {size: each.seconds for size, each in averages.items() if each.steps >= MEASURED_STEPS}
        if known and (0 not in known or self._guesses_in_a_row >= GUESSES_IN_A_ROW):
            return 0
        if untimed is not None:
            most = min(most, max(untimed, *known, 0))
        return useful_guess(known, most, right)

    def useful_guesses(self, most: int, right: float) -> dict[str, int]:
        return {kind: self.useful_guess(kind, most, right) for kind in self._guessed}


def _bucket(guessed: int) -> int:
    return 1 << (guessed - 1).bit_length()


class _Average:
    __slots__ = ("seconds", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.steps += 1
        if self.steps > 1:
            seconds = min(seconds, MOST_OVER_AVERAGE * self.seconds)
        weight = max(NEWEST, 1 / self.steps)
        self.seconds += weight * (seconds - self.seconds)
