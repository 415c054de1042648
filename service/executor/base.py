"""The interface of everything that generates: an `Executor` takes requests, an `Answer` is one that it accepted."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal, Protocol

import msgspec

from service.errors import Overloaded
from service.events import CompletionBuilder, Event, replay
from service.generation import Completion, GenerationRequest
from service.profile import ModelProfile
from service.queries import Finding, Query
from service.settings import Settings
from service.tallies import CallTally, DraftTally

RETRY_AFTER_SECONDS = 5.0

ModelState = Literal["loading", "healthy", "degraded", "unhealthy"]


class ExecutorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A reading that costs nothing. `running` and `waiting` count sequences; `detail` is for people. `permanent` comes
    with `unhealthy` if a new process would fail alike, `unloaded` with `healthy` if the next request loads the model.

    `memory_bytes` is everything that the model and its computations hold, `prefix_cache_bytes` the prefix cache's part
    of it; None is not known. `engine_restarts`, `generated_tokens` and `read_tokens` (of prompts) count since the
    start, the tallies since the model was loaded.
    """

    state: ModelState
    running: int = 0
    waiting: int = 0
    detail: str = ""
    permanent: bool = False
    unloaded: bool = False
    memory_bytes: int | None = None
    prefix_cache_bytes: int | None = None
    engine_restarts: int = 0
    generated_tokens: int = 0
    read_tokens: int = 0
    tool_calls: CallTally = msgspec.field(default_factory=CallTally)
    drafts: DraftTally = msgspec.field(default_factory=DraftTally)

    @property
    def loaded(self) -> bool:
        return self.state in ("healthy", "degraded") and not self.unloaded

    @property
    def makes_progress(self) -> bool:
        """Whether waiting makes sense."""
        return self.state in ("loading", "healthy")


class Answer(Protocol):
    """A request that was accepted: everything that could be refused has been refused."""

    @property
    def prompt_tokens(self) -> int: ...
    def events(self) -> AsyncIterator[Event]:
        """May be read once. Raises `ServiceError` when the generation fails. Leaving early aborts the generation."""
        ...

    async def aclose(self) -> None:
        """Aborts the generation unless it has ended. May be called twice."""
        ...


class Executor(Protocol):
    @property
    def profile(self) -> ModelProfile: ...
    def status(self) -> ExecutorStatus: ...

    async def start(self) -> None:
        """Begins loading, and returns at once; `status` shows when the model is ready."""
        ...

    async def submit(self, request: GenerationRequest) -> Answer:
        """Returns when the request is accepted. Raises `ServiceError` when it is refused."""
        ...

    async def count_tokens(self, request: GenerationRequest) -> int:
        """The length of the request's prompt in tokens, template and tools included."""
        ...

    async def ask(self, query: Query) -> Finding:
        """Raises `ServiceError`."""
        ...

    async def aclose(self) -> None:
        """Fails what still runs with `ShuttingDown`, and frees everything."""
        ...


class GeneratedAnswer:
    """An `Answer` whose events a generator makes. `source` is the answer that the generator reads, if it reads one: a
    generator that was never begun does not close it."""

    def __init__(
        self, prompt_tokens: int, events: AsyncGenerator[Event, None], *, source: Answer | None = None
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self._events = events
        self._source = source

    def events(self) -> AsyncIterator[Event]:
        return self._events

    async def aclose(self) -> None:
        await self._events.aclose()
        if self._source is not None:
            await self._source.aclose()


def refuse_when_full(sequences: int, settings: Settings) -> None:
    """Raises `Overloaded` if this many sequences in an executor leave no place for another."""
    if sequences >= settings.max_concurrency + settings.max_queue:
        raise Overloaded(
            f"The queue of {settings.max_queue} is full. Try again later, or raise maxQueue.",
            retry_after=RETRY_AFTER_SECONDS,
        )


async def collect(events: AsyncIterator[Event]) -> Completion:
    """Reads a whole generation. Raises what the generation raises."""
    builder = CompletionBuilder()
    async for event in events:
        builder.feed(event)
    return builder.build()


async def replayed(completion: Completion) -> AsyncGenerator[Event, None]:
    """The reverse of `collect`."""
    for event in replay(completion):
        yield event
