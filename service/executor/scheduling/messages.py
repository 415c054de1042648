"""Each `Submit` is answered by any number of `Started`, `PromptRead` and `Progress` and exactly one `Finished`,
`Failed` or `Aborted`, each `Inspect` by one `Inspected`."""

from typing import Any

import msgspec

from service.errors import ServiceError
from service.events import Event
from service.generation import GenerationRequest, SamplingParams
from service.queries import PrefixBranch


class Grammar(msgspec.Struct, frozen=True):
    """`matcher` is llguidance's, before the first token; each sequence copies it. `tokens` is its vocabulary size."""

    matcher: Any
    tokens: int


class ReasoningMarkers(msgspec.Struct, frozen=True):
    opens: str
    closes: str


class ReasoningForm(ReasoningMarkers, frozen=True):
    """The tokens `closing` end the reasoning, and the tokens `answer` begin the answer behind it."""

    closing: tuple[int, ...]
    answer: tuple[int, ...]


class Prompt(msgspec.Struct, frozen=True):
    """`tokens` end with `prefill`, the given beginning of the answer. `in_reasoning`: the template opened the model's
    reasoning. `boundaries`: token counts at the ends of messages. `reasoning`: None if there can be none."""

    tokens: list[int]
    in_reasoning: bool = False
    prefill: str = ""
    grammar: Grammar | None = None
    boundaries: tuple[int, ...] = ()
    reasoning: ReasoningForm | None = None


class PromptUse(msgspec.Struct, frozen=True):
    cached_tokens: int = 0
    stored_tokens: int = 0


class Sequence(msgspec.Struct, frozen=True, kw_only=True):
    """`max_tokens` is at least 1 and fits the context. A sequence that still waits at `start_before` (monotonic
    seconds) fails. The last `answered` tokens of the prompt are the answer so far."""

    id: int
    choice: int
    request: GenerationRequest
    prompt: Prompt
    sampling: SamplingParams
    max_tokens: int
    start_before: float
    answered: int = 0


class Submit(msgspec.Struct, frozen=True):
    sequence: Sequence


class Abort(msgspec.Struct, frozen=True):
    sequence: int


class Inspect(msgspec.Struct, frozen=True): ...


class Shutdown(msgspec.Struct, frozen=True): ...


Command = Submit | Abort | Inspect | Shutdown


class Started(msgspec.Struct, frozen=True):
    """Sent again if the sequence runs again."""

    sequence: int


class PromptRead(msgspec.Struct, frozen=True):
    """`tokens` of the prompt are read or reused."""

    sequence: int
    tokens: int


class Progress(msgspec.Struct, frozen=True):
    """`events` is never empty."""

    sequence: int
    events: list[Event]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """`events` end with `ChoiceFinished`."""

    sequence: int
    events: list[Event]
    completion_tokens: int
    reasoning_tokens: int = 0
    prompt_use: PromptUse = PromptUse()


class Failed(msgspec.Struct, frozen=True):
    sequence: int
    error: ServiceError


class Aborted(msgspec.Struct, frozen=True):
    sequence: int


class Inspected(msgspec.Struct, frozen=True):
    branches: list[PrefixBranch]


Delivery = Started | PromptRead | Progress | Finished | Failed | Aborted | Inspected
