from service.executor.speculation.step_times import StepTimes
from service.tallies import DraftTally

# The first guesses are made as if three of four guessed tokens had been right. Older ones count less.
FIRST_RIGHT, FIRST_JUDGED = 0.75, 4.0
OLDER = 0.97

# What does not pay is tried again after 128 chances: texts and times change.
PASSED_OVER = 128

# Fewer right guesses pay nowhere. Times alone would not say so before they are measured.
LEAST_RIGHT = 0.02


# What guesses took, and how often they were right, over all sequences.
class Experience:
    def __init__(self) -> None:
        self.tally = DraftTally()
        self.times = StepTimes()
        self._shares: dict[tuple[str, int], _Share] = {}

    def length(self, kind: str, basis: int, most: int, *, untimed: int) -> int:
        """Returns how many tokens are worth guessing next."""
        share = self._share(kind, basis)
        if share.passed_over >= PASSED_OVER:
            # Until a guess was made: in this step a token may be computed ahead, or a draft model may read the prompt.
            return min(most, untimed)
        right = share.value
        length = 0 if right < LEAST_RIGHT else self.times.useful_guess(kind, most, right, untimed=untimed)
        share.passed_over += length == 0
        return length

    def share(self, kind: str, basis: int) -> float:
        return self._share(kind, basis).value

    def learn(self, kind: str, basis: int, guessed: int, right: int) -> None:
        self._share(kind, basis).learn(guessed, right)

    def _share(self, kind: str, basis: int) -> "_Share":
        return self._shares.setdefault((kind, basis), _Share())


class _Share:
    __slots__ = ("_judged", "_right", "passed_over")

    def __init__(self) -> None:
        self._right = FIRST_RIGHT * FIRST_JUDGED
        self._judged = FIRST_JUDGED
        self.passed_over = 0

    @property
    def value(self) -> float:
        return self._right / self._judged

    def learn(self, guessed: int, right: int) -> None:
        # Tokens behind the first wrong one are not judged.
        self._right = OLDER * self._right + right
        self._judged = OLDER * self._judged + right + (right < guessed)
        self.passed_over = 0
