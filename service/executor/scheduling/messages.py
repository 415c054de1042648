"""What crosses between the event loop and the thread that owns MLX: `Command`s to it, `Delivery`s from it.

Every `Submit` is answered by any number of `Started` and `Progress` and by exactly one terminal message: `Finished`,
`Failed` or `Aborted`.
"""

from typing import Any

import msgspec

from service.errors import ServiceError
from service.events import Event
from service.generation import GenerationRequest, SamplingParams


class Grammar(msgspec.Struct, frozen=True):
    """The form of an answer. `matcher` is llguidance's `LLMatcher` before the first token; each sequence copies it.
    `tokens` is the number of token ids that it covers."""

    matcher: Any
    tokens: int


class Prompt(msgspec.Struct, frozen=True):
    """What the model reads. `in_reasoning`: the template opened the model's reasoning. `tokens` end with `prefill`, the
    beginning of the answer that the request gave. `boundaries` are token counts after which other prompts may differ:
    the ends of messages."""

    tokens: list[int]
    in_reasoning: bool = False
    prefill: str = ""
    grammar: Grammar | None = None
    boundaries: tuple[int, ...] = ()


class PromptUse(msgspec.Struct, frozen=True):
    """How many of a prompt's tokens came from the prefix cache, and how many were added to it."""

    cached_tokens: int = 0
    stored_tokens: int = 0


class Sequence(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to generate: choice number `choice` of `request`, with this choice's own seed in `sampling`.

    `max_tokens` is at least 1 and fits the context together with the prompt. A sequence that still waits at
    `start_before`, in seconds of the monotonic clock, fails.
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
    """Gives up a sequence; does nothing if it has ended."""

    sequence: int


class Shutdown(msgspec.Struct, frozen=True):
    """Fails what is left, and ends the thread."""


Command = Submit | Abort | Shutdown


class Started(msgspec.Struct, frozen=True):
    """The sequence was admitted. Sent again if it runs again."""

    sequence: int


class Progress(msgspec.Struct, frozen=True):
    """`events` is never empty."""

    sequence: int
    events: list[Event]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """`events` are the last ones, `ChoiceFinished` included. The counts are this sequence's alone."""

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
