"""What the executor's threads call: a `Renderer` of prompts, an `Engine` of tokens, and `Writer`s of events."""

from typing import Literal, Protocol

import msgspec

from service.events import Event
from service.executor.scheduling.messages import Prompt, PromptUse, Sequence
from service.generation import GenerationRequest

EndReason = Literal["stop", "length"]


class EngineLost(Exception):
    """The engine cannot be rebuilt on this thread: the model must be loaded again."""


class TokenChances(msgspec.Struct, frozen=True, gc=False):
    """The natural logarithm of a token's probability, and the likeliest `(token, logprob)` in falling order."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Token(msgspec.Struct, frozen=True, gc=False):
    """One decoded token of one sequence; the last one has `end`. If `end` is `stop` it is an end-of-text token, which
    has no text. `chances` are set if the request asked for logprobs. `error` is why the sequence cannot go on.
    `prompt_use` comes with the last token."""

    sequence: int
    id: int
    end: EndReason | None = None
    chances: TokenChances | None = None
    error: str = ""
    prompt_use: PromptUse | None = None


class Renderer(Protocol):
    """Makes the prompt of a request. Called by one thread at a time, which is not the engine's."""

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `ServiceError` for a request that the model cannot read."""
        ...

    def count(self, request: GenerationRequest) -> int:
        """Returns the prompt's length in tokens."""
        ...


class Engine(Protocol):
    """Runs sequences side by side. Only the scheduler's thread calls it."""

    @property
    def prompt_tokens_read(self) -> int:
        """Tokens of prompts read so far; it only grows."""
        ...

    def shortfall(self, sequences: list[Sequence]) -> int:
        """Returns the bytes missing to run these side by side up to their last token; they fit if it is 0 or less."""
        ...

    def memory_bytes(self) -> int: ...
    def prefix_cache_bytes(self) -> int: ...

    def insert(self, sequence: Sequence) -> None:
        """Adds a sequence, whose prompt is read first. Raises if something is wrong with this sequence alone."""
        ...

    def remove(self, sequence: int) -> PromptUse | None:
        """Frees a sequence that has not ended, in any phase. Returns how its prompt was read, if known."""
        ...

    def step(self) -> list[Token]:
        """Reads at most one chunk of the unread prompts, and decodes one or more tokens of each sequence, in order.
        Nothing of a sequence follows its `end`."""
        ...

    def reset(self) -> None:
        """Drops every sequence, and makes the engine usable after an exception."""
        ...

    def close(self) -> None:
        """Frees what the engine holds. No other call follows."""
        ...


class Writer(Protocol):
    """Turns the tokens of one sequence into events."""

    @property
    def stopped(self) -> bool:
        """True once a stop string was met."""
        ...

    @property
    def reasoning_tokens(self) -> int: ...
    def feed(self, token: Token) -> list[Event]: ...
    def finish(self, reason: EndReason) -> list[Event]:
        """Returns what was held back, and `ChoiceFinished`."""
        ...
