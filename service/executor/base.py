from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal, Protocol

import msgspec

from service.device.memory import LEAST_CONTEXT_TOKENS
from service.errors import Overloaded
from service.events import CompletionBuilder, Event, events_of
from service.generation import Completion, GenerationRequest
from service.profile import ModelProfile
from service.queries import Finding, Query
from service.settings import Settings
from service.tallies import CallTally, DraftTally, StateTally, Tuning

RETRY_AFTER_SECONDS = 5.0

ModelState = Literal["loading", "healthy", "degraded", "unhealthy"]


class ExecutorStatus(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`running` and `waiting` count sequences; `detail` is for people. `permanent` (with `unhealthy`): a new process
    would fail too; `no_room`: it would until there is more memory. `unloaded` (with `healthy`): the next request loads
    the model.

    `memory_bytes` includes `prefix_cache_bytes`, `context_tokens` fit into memory beside the weights, and at present
    `max_concurrency` sequences may run; None is unknown. Counts start with the executor, tallies and `peak_bytes` with
    each load.
    `last_end`: how the last engine process that was not asked to has ended.
    """

    state: ModelState
    running: int = 0
    waiting: int = 0
    detail: str = ""
    permanent: bool = False
    no_room: bool = False
    unloaded: bool = False
    memory_bytes: int | None = None
    peak_bytes: int | None = None
    prefix_cache_bytes: int | None = None
    context_tokens: int | None = None
    max_concurrency: int | None = None
    last_end: str = ""
    engine_restarts: int = 0
    generated_tokens: int = 0
    read_tokens: int = 0
    tool_calls: CallTally = msgspec.field(default_factory=CallTally)
    drafts: DraftTally = msgspec.field(default_factory=DraftTally)
    states: StateTally = msgspec.field(default_factory=StateTally)
    tuning: Tuning | None = None

    @property
    def loaded(self) -> bool:
        return self.state in ("healthy", "degraded") and not self.unloaded

    def context_length(self, profile: ModelProfile) -> int:
        """Returns the tokens that both the model and memory allow."""
        if self.context_tokens is None:
            return profile.context_length
        # If other programs hold all memory, clients are offered what a load needs: no client can use a context of 0.
        return min(profile.context_length, self.context_tokens or LEAST_CONTEXT_TOKENS)

    @property
    def makes_progress(self) -> bool:
        return self.state in ("loading", "healthy")


class Answer(Protocol):
    @property
    def prompt_tokens(self) -> int: ...

    @property
    def read_tokens(self) -> int | None:
        """None while the request waits, or if the executor does not know."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Can be read once. Raises `ServiceError`. Leaving early aborts the generation."""
        ...

    async def aclose(self) -> None:
        """Aborts the generation unless it has ended. May be called twice."""
        ...


class Executor(Protocol):
    @property
    def profile(self) -> ModelProfile: ...
    def status(self) -> ExecutorStatus: ...

    async def start(self) -> None:
        """Returns at once; `status` shows when the model is ready."""
        ...

    async def identify(self) -> None:
        """Returns once `profile` has its fingerprint; it changes with the model's files. Raises `ServiceError`."""
        ...

    async def submit(self, request: GenerationRequest) -> Answer:
        """Returns once the request is accepted. Raises `ServiceError`."""
        ...

    async def count_tokens(self, request: GenerationRequest) -> int:
        """Includes template and tools. Raises `ServiceError`."""
        ...

    async def ask(self, query: Query) -> Finding:
        """Raises `ServiceError`."""
        ...

    async def aclose(self) -> None:
        """Fails open answers with `ShuttingDown`."""
        ...


class AnswerFromEvents:
    """`source` is the answer that the generator reads: a generator that never started cannot close it."""

    def __init__(
        self, prompt_tokens: int, events: AsyncGenerator[Event, None], *, source: Answer | None = None
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self._events = events
        self._source = source

    @property
    def read_tokens(self) -> int | None:
        return None if self._source is None else self._source.read_tokens

    def events(self) -> AsyncIterator[Event]:
        return self._events

    async def aclose(self) -> None:
        await self._events.aclose()
        if self._source is not None:
            await self._source.aclose()


def refuse_when_full(sequences: int, settings: Settings) -> None:
    """`sequences` are those in the executor. Raises `Overloaded`."""
    if sequences >= settings.most_running + settings.max_queue:
        raise Overloaded(
            f"The queue of {settings.max_queue} is full. Try again later, or raise maxQueue.",
            retry_after=RETRY_AFTER_SECONDS,
        )


async def collect(events: AsyncIterator[Event]) -> Completion:
    builder = CompletionBuilder()
    async for event in events:
        builder.feed(event)
    return builder.build()


async def event_stream(completion: Completion) -> AsyncGenerator[Event, None]:
    for event in events_of(completion):
        yield event
