"""What runs again after the engine failed, and whose fault it was: the engine's, or one request's. Knows no MLX."""

from service.executor.scheduling.messages import Prompt, Sequence
from service.executor.scheduling.protocols import EngineLost
from service.generation import GenerationRequest, Message, SamplingParams

FAILURES_IN_A_ROW = 3
"""After so many failures without any progress in between, rebuilding the engine does not help."""

PROBE = -1
"""The sequence that tells whether the engine works without the suspect."""


class Trials:
    """A sequence that was lost runs again, once. Until its first token it is on trial: it has the engine to itself, so
    that one that the engine cannot run fails alone. Then it is the `suspect`, and if the engine works without it, it
    takes the blame: a client that sends it again and again does not bring the engine down."""

    def __init__(self) -> None:
        self.suspect: Sequence | None = None
        self._failures = 0
        self._retried: set[int] = set()
        self._on_trial: set[int] = set()
        self._blamed: set[int] = set()  # prompts, by their hash

    @property
    def open(self) -> bool:
        return bool(self._on_trial)

    def is_retried(self, sequence: Sequence) -> bool:
        return sequence.id in self._retried

    def retry(self, sequence: Sequence) -> None:
        self._retried.add(sequence.id)
        self._on_trial.add(sequence.id)

    def acquit(self, sequence_id: int) -> None:
        """It has a token."""
        self._on_trial.discard(sequence_id)

    def forget(self, sequence_id: int) -> None:
        """It has ended."""
        self._retried.discard(sequence_id)
        self._on_trial.discard(sequence_id)

    def progress(self) -> None:
        """The engine has made something, and it has arrived."""
        self._failures = 0
        self._blamed.clear()

    def fail(self, lost: list[Sequence], reason: Exception) -> None:
        """The engine has failed with all of `lost`. Raises `EngineLost` where that happens too often."""
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise EngineLost(
                f"The engine failed {self._failures} times in a row, the last time with: {reason!r}"
            ) from reason
        if len(lost) == 1 and lost[0].id in self._on_trial:
            self.suspect = lost[0]

    def blame(self) -> None:
        """The engine works without the suspect. Raises `EngineLost` where that is said of too many prompts in a row."""
        if self.suspect is None:
            return
        self._blamed.add(hash(tuple(self.suspect.prompt.tokens)))
        self.suspect = None
        self._failures = 0
        if len(self._blamed) >= FAILURES_IN_A_ROW:
            raise EngineLost(f"The engine failed with {len(self._blamed)} prompts in a row, each of them twice")


def make_probe(suspect: Sequence) -> Sequence:
    """Has nothing of the suspect but the first token of its prompt, which every model knows."""
    return Sequence(
        id=PROBE,
        choice=0,
        request=GenerationRequest(messages=(Message(role="user"),)),
        prompt=Prompt(suspect.prompt.tokens[:1]),
        sampling=SamplingParams(),
        max_tokens=1,
        start_before=suspect.start_before,
    )
