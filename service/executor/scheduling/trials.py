from service.executor.scheduling.messages import Prompt, Sequence
from service.executor.scheduling.protocols import EngineLost
from service.generation import GenerationRequest, Message, SamplingParams

# After this many failures without progress, rebuilding the engine does not help.
FAILURES_IN_A_ROW = 3

# Id of the sequence that tests the engine without the suspect.
PROBE = -1


class Trials:
    """A lost sequence runs again once, alone until its first token. If it fails again it is the `suspect`. If the
    engine then works without it, it is blamed, so a client that repeats it cannot bring the engine down."""

    def __init__(self) -> None:
        self.suspect: Sequence | None = None
        self._failures = 0
        self._retried: set[int] = set()
        self._on_trial: set[int] = set()
        self._blamed: set[int] = set()  # hashes of prompts

    @property
    def open(self) -> bool:
        return bool(self._on_trial)

    def is_retried(self, sequence: Sequence) -> bool:
        return sequence.id in self._retried

    def retry(self, sequence: Sequence) -> None:
        self._retried.add(sequence.id)
        self._on_trial.add(sequence.id)

    def acquit(self, sequence_id: int) -> None:
        self._on_trial.discard(sequence_id)

    def forget(self, sequence_id: int) -> None:
        self._retried.discard(sequence_id)
        self._on_trial.discard(sequence_id)

    def progress(self) -> None:
        self._failures = 0
        self._blamed.clear()

    def fail(self, lost: list[Sequence], reason: Exception) -> None:
        """Raises `EngineLost` after too many failures without progress."""
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise EngineLost(
                f"The engine failed {self._failures} times in a row, the last time with: {reason!r}"
            ) from reason
        if len(lost) == 1 and lost[0].id in self._on_trial:
            self.suspect = lost[0]

    def blame(self) -> None:
        """Raises `EngineLost` after too many suspects in a row."""
        if self.suspect is None:
            return
        self._blamed.add(hash(tuple(self.suspect.prompt.tokens)))
        self.suspect = None
        self._failures = 0
        if len(self._blamed) >= FAILURES_IN_A_ROW:
            raise EngineLost(f"The engine failed with {len(self._blamed)} prompts in a row, each of them twice")


def make_probe(suspect: Sequence) -> Sequence:
    return Sequence(
        id=PROBE,
        choice=0,
        request=GenerationRequest(messages=(Message(role="user"),)),
        prompt=Prompt(suspect.prompt.tokens[:1]),
        sampling=SamplingParams(),
        max_tokens=1,
        start_before=suspect.start_before,
    )
