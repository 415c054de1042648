"""What the scheduler works with: an engine that makes tokens, and writers that make events of them. Knows no MLX."""

from typing import Literal, Protocol

import msgspec

from service.events import Event
from service.executor.scheduling.messages import PromptUse, Sequence

EndReason = Literal["stop", "length"]


class EngineLost(Exception):
    """The engine cannot be made to work again on this thread: it must be loaded anew."""


class TokenChances(msgspec.Struct, frozen=True, gc=False):
    """How likely a token was, as natural logarithms, and the likeliest `(token, logprob)` in falling order."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Token(msgspec.Struct, frozen=True, gc=False):
    """One decoded token of one sequence. With `end` it is the last: on `stop` it is an end-of-text token, which has
    no text. `chances` are there where the request asked for them. `error` says why the sequence cannot go on. The last
    token may tell how the prompt was read."""

    sequence: int
    id: int
    end: EndReason | None = None
    chances: TokenChances | None = None
    error: str = ""
    prompt_use: PromptUse | None = None


class Engine(Protocol):
    """Runs sequences side by side. Only the scheduler's thread calls it. `prompt_tokens_read` grows with every part of
    a prompt that was read."""

    @property
    def prompt_tokens_read(self) -> int: ...

    def shortfall(self, sequences: list[Sequence]) -> int:
        """The bytes that are missing to run these side by side up to their last token; 0 or less: they fit."""
        ...

    def memory_bytes(self) -> int: ...
    def prefix_cache_bytes(self) -> int: ...

    def insert(self, sequence: Sequence) -> None:
        """The sequence takes part from the next `step` on, its prompt first. Raises for what is wrong with it alone."""
        ...

    def remove(self, sequence: int) -> PromptUse | None:
        """Frees a sequence that has not ended, in whatever phase it is. May tell how its prompt was read."""
        ...

    def step(self) -> list[Token]:
        """Decodes a token of each sequence, or several, in their order, and reads at most one chunk of the waiting
        prompts. Nothing of a sequence follows its `end`."""
        ...

    def reset(self) -> None:
        """Drops every sequence, and makes the engine usable again after an exception."""
        ...

    def close(self) -> None:
        """Frees what the engine holds. Nothing else is called after it."""
        ...


class Writer(Protocol):
    """Turns the tokens of one sequence into events."""

    @property
    def stopped(self) -> bool:
        """A stop string has been met: nothing more is to be written."""
        ...

    @property
    def reasoning_tokens(self) -> int: ...
    def feed(self, token: Token) -> list[Event]: ...
    def finish(self, reason: EndReason) -> list[Event]:
        """What was held back, and `ChoiceFinished`."""
        ...
