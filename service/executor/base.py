"""What endpoints know of a generation: an `Executor` takes requests, an `Answer` is one of them accepted."""

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

from service.events import CompletionBuilder, Event, replay
from service.generation import Completion, GenerationRequest, SamplingParams

CacheOutcome = Literal["hit", "miss", "collapsed", "bypass"]
ModelState = Literal["loading", "ready", "stalled", "failed"]


class CacheDirectives(msgspec.Struct, frozen=True, kw_only=True):
    """What the client's `Cache-Control` asks of the response cache (RFC 9111 section 5.2.1). `max_age` in seconds."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None


NO_DIRECTIVES = CacheDirectives()


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the served model from its files alone, before it is loaded.

    `id` is what `/v1/models` lists, `aliases` are the operator's other words for it; `fingerprint` names weights,
    config, tokenizer, template and adapter; `context_length` is in tokens; `sampling` are the resolved defaults
    (settings over generation_config.json over greedy); `created` is the model's date in Unix seconds.
    """

    id: str
    fingerprint: str
    context_length: int
    sampling: SamplingParams = SamplingParams()
    created: int = 0
    aliases: tuple[str, ...] = ()


class ExecutorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A reading that costs nothing. `running` and `waiting` are sequences; `detail` is for people.

    `memory_bytes` is what the model and everything computed with it hold, `prefix_cache_bytes` the prefix cache's part
    of it; None is not known. `engine_restarts` counts since the start, what follows since the model was loaded: repairs
    in tool calls, and calls that broke off, could not be read, named no tool on offer, or do not fit their schema; and
    tokens guessed by speculative decoding, and those of them that were right.
    """

    state: ModelState
    running: int = 0
    waiting: int = 0
    detail: str = ""
    memory_bytes: int | None = None
    prefix_cache_bytes: int | None = None
    engine_restarts: int = 0
    tool_call_repairs: int = 0
    tool_calls_cut: int = 0
    tool_calls_broken: int = 0
    tool_calls_unknown: int = 0
    tool_calls_mismatched: int = 0
    drafted_tokens: int = 0
    accepted_draft_tokens: int = 0


class Answer(Protocol):
    """A request that was accepted: everything that could be refused has been. Read it once: either way, or close it.

    Both ways raise `ServiceError` when the generation fails. Leaving `events` early, or cancelling `completion`, gives
    up this reader's share; a generation that nobody reads is aborted.
    """

    @property
    def outcome(self) -> CacheOutcome: ...
    @property
    def stored(self) -> bool:
        """Whether the response cache keeps this answer, as far as can be said now."""
        ...

    @property
    def prompt_tokens(self) -> int: ...
    def events(self) -> AsyncIterator[Event]: ...
    async def completion(self) -> Completion: ...
    async def aclose(self) -> None: ...


class Executor(Protocol):
    """Generates. `CachingExecutor` is one around another, so that nobody else knows of the response cache."""

    @property
    def profile(self) -> ModelProfile: ...
    def status(self) -> ExecutorStatus: ...

    async def start(self) -> None:
        """Begins loading, and returns at once; `status` tells when it is ready."""
        ...

    async def submit(self, request: GenerationRequest, directives: CacheDirectives = NO_DIRECTIVES) -> Answer:
        """Returns when the request is accepted. Raises `ServiceError` for whatever is wrong with it or refused now."""
        ...

    async def count_tokens(self, request: GenerationRequest) -> int:
        """How many tokens the prompt of this request has, template and tools included."""
        ...

    async def aclose(self) -> None:
        """Fails what still runs with `ShuttingDown`, and frees everything."""
        ...


class StoredAnswer:
    """An `Answer` that is already complete."""

    def __init__(self, completion: Completion, outcome: CacheOutcome = "hit") -> None:
        self._completion = completion
        self.outcome: CacheOutcome = outcome
        self.stored = False

    @property
    def prompt_tokens(self) -> int:
        return self._completion.usage.prompt_tokens

    async def events(self) -> AsyncIterator[Event]:
        for event in replay(self._completion):
            yield event

    async def completion(self) -> Completion:
        return self._completion

    async def aclose(self) -> None:
        return None


async def collect(events: AsyncIterator[Event], *, with_logprobs: bool) -> Completion:
    """Reads a whole generation."""
    builder = CompletionBuilder(with_logprobs=with_logprobs)
    async for event in events:
        builder.feed(event)
    return builder.build()
