from collections.abc import Callable, Mapping

from service.errors import ContextLengthExceeded, Overloaded
from service.executor.base import RETRY_AFTER_SECONDS
from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import Engine

# Memory is reserved for this many tokens of an answer at a time: `max_tokens` is a bound, and agents set it high.
PORTION_TOKENS = 1024

# The next portion is reserved this many tokens before the present one ends, since a step may draw several tokens.
MARGIN_TOKENS = 64

# Other programs may take memory during an answer. Looking takes about a tenth of a millisecond.
LOOK_SECONDS = 1.0

# A sequence waits this long for memory that other programs hold.
PATIENCE_SECONDS = 30.0


class Room:
    """`longest` is the longest sequence that fits alone, in tokens. `running` are lengths of prompts with the reserved
    part of their answers, by sequence."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._short_since: float | None = None
        self._looked_at = clock()
        self.longest = engine.longest()

    @property
    def short(self) -> bool:
        """True while other programs hold the memory."""
        return self._short_since is not None

    def admit(self, sequence: Sequence, running: Mapping[int, int]) -> int:
        """Reserves the first portion of an answer and returns its tokens; 0 if the sequence has to wait. Raises
        `ContextLengthExceeded` and `Overloaded`."""
        prompt = len(sequence.prompt.tokens)
        if prompt >= self.longest:
            self._extend()
        if prompt >= self.longest > 0:
            raise ContextLengthExceeded(prompt, self.longest)
        portion = self._begin(sequence, running)
        if portion or running or self._waits_on():
            return portion
        # Only now: other programs may need memory for a moment, and a client that shortens its prompt loses context.
        self.longest = self._engine.longest()
        if prompt >= self.longest > 0:
            raise ContextLengthExceeded(prompt, self.longest)
        portion = self._begin(sequence, running)  # a smaller one may fit
        if portion:
            return portion
        raise Overloaded(
            "Other programs hold the memory that an answer needs. Close some, or try again later.",
            retry_after=RETRY_AFTER_SECONDS,
        )

    def grow(self, sequence: Sequence, reserved: int, running: Mapping[int, int]) -> int:
        """Returns the tokens that are reserved now, with or without a further portion."""
        prompt = len(sequence.prompt.tokens)
        most = min(sequence.max_tokens, self.longest - prompt)
        for portion in (PORTION_TOKENS, PORTION_TOKENS // 4):
            wanted = min(reserved + portion, most)
            if wanted > reserved and self._take(running, sequence.id, prompt + wanted):
                return wanted
        return reserved

    def look_around(self, running: Mapping[int, int]) -> None:
        """Gives memory to other programs and takes what they have freed."""
        self._looked_at = self._clock()
        self._engine.reserve(running)
        if not running:
            self._extend()

    def looks_again(self, now: float) -> bool:
        return now - self._looked_at >= LOOK_SECONDS

    def forget_waiting(self) -> None:
        self._short_since = None

    def _begin(self, sequence: Sequence, running: Mapping[int, int]) -> int:
        prompt = len(sequence.prompt.tokens)
        portion = min(sequence.max_tokens, PORTION_TOKENS, max(1, self.longest - prompt))
        if not self._take(running, sequence.id, prompt + portion):
            return 0
        self._short_since = None
        return portion

    def _take(self, running: Mapping[int, int], sequence: int, length: int) -> bool:
        lengths = {**running, sequence: length}
        if self._engine.shortfall(list(lengths.values())) > 0:
            return False
        self._engine.reserve(lengths)
        return True

    def _waits_on(self) -> bool:
        now = self._clock()
        if self._short_since is None:
            self._short_since = now
        # All who wait have one deadline. With a deadline each, one after the other, they would wait for minutes.
        return now - self._short_since < PATIENCE_SECONDS

    def _extend(self) -> None:
        self.longest = max(self.longest, self._engine.longest())
