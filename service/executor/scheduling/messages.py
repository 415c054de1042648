"""What crosses between the event loop and the thread that owns MLX. Nothing else is shared between the two.

Every `Submit` is answered by any number of `Started` and `Progress`, and exactly one terminal message for its sequence:
`Finished`, `Failed` or `Aborted`.
"""

from typing import Any

import msgspec

from service.errors import ServiceError
from service.events import Event
from service.generation import GenerationRequest, SamplingParams


class Grammar(msgspec.Struct, frozen=True):
    """What an answer must look like. `matcher` is an `LLMatcher` of llguidance's, before the answer's first token; it
    is shared, and copied for each sequence. `tokens` is how many token ids it knows."""

    matcher: Any
    tokens: int


class Prompt(msgspec.Struct, frozen=True):
    """What the model reads. `in_reasoning`: the template has opened the model's reasoning already. `prefill` is the
    beginning of the answer, where the request gives one: `tokens` end with it. `boundaries` are the numbers of tokens
    after which other prompts may go on in another way: where messages end."""

    tokens: list[int]
    in_reasoning: bool = False
    prefill: str = ""
    grammar: Grammar | None = None
    boundaries: tuple[int, ...] = ()


class PromptUse(msgspec.Struct, frozen=True):
    """Of a prompt's tokens, `cached_tokens` came from the prefix cache, and `stored_tokens` were added to it."""

    cached_tokens: int = 0
    stored_tokens: int = 0


class Sequence(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to be generated: choice number `choice` of `request`. `sampling` has the seed of this choice.

    `max_tokens` is at least 1 and fits the context together with the prompt. `start_before` is a time of the
    monotonic clock, in seconds: one that still waits then is failed.
    """

    id: int
    choice: int
    request: GenerationRequest
    prompt: Prompt
    sampling: SamplingParams
    max_tokens: int
    start_before: float


class Submit(msgspec.Struct, frozen=True):
    sequence: Sequence


class Abort(msgspec.Struct, frozen=True):
    """Nobody reads this sequence any more. One that has ended already is left alone."""

    sequence: int


class Shutdown(msgspec.Struct, frozen=True):
    """Fail what is left, and end the thread."""


Message = Submit | Abort | Shutdown


class Started(msgspec.Struct, frozen=True):
    """It waits no longer. Comes again where a sequence is run again."""

    sequence: int


class Progress(msgspec.Struct, frozen=True):
    """More of one answer. `events` is never empty."""

    sequence: int
    events: list[Event]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is whole; `events` are its last, with `ChoiceFinished`. The counts are of this sequence alone."""

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


Delivery = Started | Progress | Finished | Failed | Aborted
