from typing import Literal, Protocol

import msgspec

from service.events import Event
from service.executor.scheduling.messages import Prompt, PromptUse, Sequence
from service.generation import GenerationRequest

EndReason = Literal["stop", "length"]


class EngineLost(Exception):
    """The engine cannot be rebuilt: the model must be loaded again."""


class TokenChances(msgspec.Struct, frozen=True, gc=False):
    """Natural logarithms; `top` holds `(token, logprob)` in falling order."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Token(msgspec.Struct, frozen=True, gc=False):
    """The last token has `end`; on `stop` it is an end-of-text token without text. `error`: why the sequence cannot go
    on."""

    sequence: int
    id: int
    end: EndReason | None = None
    chances: TokenChances | None = None
    error: str = ""
    prompt_use: PromptUse | None = None


class Renderer(Protocol):
    """Called by one thread at a time, which is not the engine's."""

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `ServiceError` for a request that the model cannot read."""
        ...

    def count(self, request: GenerationRequest) -> int: ...


class Engine(Protocol):
    """Only the scheduler's thread calls it."""

    @property
    def prompt_tokens_read(self) -> int: ...

    def shortfall(self, sequences: list[Sequence]) -> int:
        """Returns the bytes missing to run these side by side to their end; 0 or less if they fit."""
        ...

    def memory_bytes(self) -> int: ...
    def prefix_cache_bytes(self) -> int: ...

    def insert(self, sequence: Sequence) -> None:
        """Raises if something is wrong with this sequence alone."""
        ...

    def embed(self, tokens: list[int]) -> bytes:
        """The last token's hidden state, of length 1, as little-endian float32. Raises `ServiceError`."""
        ...

    def remove(self, sequence: int) -> PromptUse | None:
        """Frees a sequence in any phase; returns how its prompt was read, if known."""
        ...

    def step(self) -> list[Token]:
        """Reads at most one chunk of prompts, and decodes one or more tokens of each sequence. Nothing follows an
        `end`."""
        ...

    def reset(self) -> None:
        """Drops all sequences; makes the engine usable after an exception."""
        ...

    def close(self) -> None: ...


class Writer(Protocol):
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
