import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

import msgspec

from service.errors import ServiceError
from service.events import ChoiceFinished, Done, Event, TextDelta
from service.executor.answer_queue import AnswerQueue
from service.executor.base import collect
from service.executor.scheduling.messages import (
    Aborted,
    Delivery,
    Failed,
    Finished,
    Progress,
    PromptRead,
    PromptUse,
    Started,
)
from service.generation import GenerationRequest, Usage


class RunningAnswer:
    """`abort` is called at most once, with the unfinished sequences, when the reader leaves or one sequence fails."""

    def __init__(self, sequences: list[int], prompt_tokens: int, *, abort: Callable[[list[int]], None]) -> None:
        self.prompt_tokens = prompt_tokens
        self.read_tokens: int | None = None
        self._open = set(sequences)
        self._abort = abort
        self._queue = AnswerQueue(self._left)
        self._begun = asyncio.Event()
        self._on_read: Callable[[int], None] = lambda _: None
        self._limit: tuple[float, ServiceError] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._prompt_uses: list[PromptUse] = []

    def limit(self, seconds: float, error: ServiceError) -> None:
        """Limits the whole answer, from the start of its first sequence."""
        self._limit = seconds, error

    async def begun(self, seconds: float) -> None:
        """Waits at most `seconds` for the start. Raises the error of an answer that was refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        if (refusal := self._queue.refusal) is not None:
            raise refusal

    def watch_reading(self, on_read: Callable[[int], None]) -> None:
        """Calls it with `read_tokens` when a sequence starts, perhaps at once, and after every chunk."""
        self._on_read = on_read
        if self.read_tokens is not None:
            on_read(self.read_tokens)

    def take(self, delivery: Delivery) -> None:
        match delivery:
            case Started():
                self._start()
            case PromptRead(_, tokens):
                self._read(tokens)
            case Progress(_, events):
                self._queue.put(events)
            case Finished():
                self._finish(delivery)
            case Failed(sequence, error):
                self._open.discard(sequence)
                self.fail(error)
            case Aborted(sequence):
                self._open.discard(sequence)

    def fail(self, error: ServiceError) -> None:
        if not self._queue.ended:
            self._queue.fail(error)
            self._left()

    def events(self) -> AsyncIterator[Event]:
        return self._queue.events()

    async def aclose(self) -> None:
        self._queue.close()

    def _start(self) -> None:
        if not self._begun.is_set():
            self._begun.set()
            self._read(0)
        if self._limit is not None:
            seconds, error = self._limit
            self._limit = None
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.fail, error)

    def _read(self, tokens: int) -> None:
        # The choices read the same prompt.
        if self.read_tokens is None or tokens > self.read_tokens:
            self.read_tokens = tokens
            self._on_read(tokens)

    def _finish(self, finished: Finished) -> None:
        self._open.discard(finished.sequence)
        self._completion_tokens += finished.completion_tokens
        self._reasoning_tokens += finished.reasoning_tokens
        self._prompt_uses.append(finished.prompt_use)
        events = [_with_tokens(event, finished.completion_tokens) for event in finished.events]
        if self._open:
            self._queue.put(events)
        else:
            self._queue.put([*events, self._done()], last=True)
            self._stop_waiting()

    def _left(self) -> None:
        self._stop_waiting()
        if self._open:
            self._abort(sorted(self._open))

    def _stop_waiting(self) -> None:
        self._begun.set()
        if self._deadline is not None:
            self._deadline.cancel()

    def _done(self) -> Done:
        # The choices share one prompt, so only the least `cached_tokens` came from an earlier request.
        uses = self._prompt_uses
        return Done(
            Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self._completion_tokens,
                cached_tokens=min(use.cached_tokens for use in uses),
                prefix_stored_tokens=max(use.stored_tokens for use in uses),
                reasoning_tokens=self._reasoning_tokens,
            )
        )


def _with_tokens(event: Event, tokens: int) -> Event:
    return msgspec.structs.replace(event, tokens=tokens) if isinstance(event, ChoiceFinished) else event


async def prompt_read(reading: RunningAnswer, request: GenerationRequest) -> AsyncGenerator[Event, None]:
    """Returns the events of a request for no tokens, which only fills the prefix cache."""
    # The engine reads a prompt to its end only for a next token, so `reading` generates one.
    usage = (await collect(reading.events())).usage
    for choice in range(request.n):
        if request.logprobs is not None:
            yield TextDelta(choice, "", ())
        yield ChoiceFinished(choice, "length")
    yield Done(msgspec.structs.replace(usage, completion_tokens=0, reasoning_tokens=0))
