from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from service.events import Event
from service.executor.scheduling.messages import Prompt, PromptUse, Sequence
from service.generation import GenerationRequest
from service.queries import PrefixBranch
from service.tallies import Tuning

EndReason = Literal["stop", "length"]


class EngineLost(Exception):
    """The model must be loaded again."""


class TokenChances(msgspec.Struct, frozen=True, gc=False):
    """Natural logarithms. `top` holds `(token, logprob)`, the most likely first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Token(msgspec.Struct, frozen=True, gc=False):
    """`end` is set on the last token; with `stop` it is an end-of-text token without text. `error`: the sequence cannot
    continue."""

    sequence: int
    id: int
    end: EndReason | None = None
    chances: TokenChances | None = None
    error: str = ""
    prompt_use: PromptUse | None = None


class Renderer(Protocol):
    """One thread at a time calls it, never the engine's."""

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `ServiceError` if the model cannot read the request."""
        ...

    def count(self, request: GenerationRequest) -> int: ...


class Engine(Protocol):
    """The MLX thread owns it."""

    @property
    def prompt_tokens_read(self) -> int: ...

    def shortfall(self, lengths: list[int]) -> int:
        """Returns the bytes missing to run sequences of these lengths, in tokens, side by side."""
        ...

    def longest(self) -> int:
        """Returns the tokens of the longest sequence that fits alone."""
        ...

    def reserve(self, lengths: Mapping[int, int]) -> None:
        """Keeps memory for sequences of these lengths by id, running or about to be inserted. What only saves time
        gives way, such as the prefix cache."""
        ...

    def memory_bytes(self) -> int: ...
    def peak_bytes(self) -> int: ...
    def prefix_cache_bytes(self) -> int: ...
    def tuning(self) -> Tuning: ...
    def prefixes(self) -> list[PrefixBranch]: ...

    def insert(self, sequence: Sequence) -> None:
        """Raises if this sequence alone is faulty."""
        ...

    def embed(self, tokens: list[int]) -> bytes:
        """Returns the last token's hidden state, normalized to length 1, as little-endian float32. Raises
        `ServiceError`."""
        ...

    def remove(self, sequence: int) -> PromptUse | None: ...

    def reading(self) -> dict[int, int]:
        """Returns the tokens read so far, by sequence, of the prompts that are read in chunks."""
        ...

    def step(self) -> list[Token]:
        """Reads at most one chunk of prompts and decodes one or more tokens of each sequence."""
        ...

    def reset(self) -> None:
        """Drops all sequences; the engine is usable again after an exception."""
        ...

    def close(self) -> None: ...


class Writer(Protocol):
    @property
    def stopped(self) -> bool: ...

    @property
    def reasoning_tokens(self) -> int: ...
    def feed(self, token: Token) -> list[Event]: ...
    def interjection(self, end: EndReason | None, room: int) -> tuple[int, ...]:
        """Returns fewer than `room` tokens that continue the answer in place of the model's own; mostly none."""
        ...

    def finish(self, reason: EndReason) -> list[Event]: ...
