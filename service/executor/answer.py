"""The event-loop side of a running generation."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

import msgspec

from service.errors import ServiceError
from service.events import ChoiceFinished, Done, Event, TextDelta
from service.executor.answer_queue import AnswerQueue
from service.executor.base import collect
from service.executor.scheduling.messages import Aborted, Delivery, Failed, Finished, Progress, PromptUse, Started
from service.generation import GenerationRequest, Usage


class RunningAnswer:
    """The `Answer` of an executor that gets `Delivery`s. `abort` is called at most once, with the sequences that were
    still being generated when the reader left, or when one of them failed."""

    def __init__(self, sequences: list[int], prompt_tokens: int, *, abort: Callable[[list[int]], None]) -> None:
        self.prompt_tokens = prompt_tokens
        self._open = set(sequences)
        self._abort = abort
        self._queue = AnswerQueue(self._left)
        self._begun = asyncio.Event()
        self._limit: tuple[float, ServiceError] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._prompt_uses: list[PromptUse] = []

    def limit(self, seconds: float, error: ServiceError) -> None:
        """How long the whole answer may take, from when its first sequence starts."""
        self._limit = seconds, error

    async def begun(self, seconds: float) -> None:
        """Waits until it has started, but no longer than that. Raises what it was refused with meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        if (refusal := self._queue.refusal) is not None:
            raise refusal

    def take(self, delivery: Delivery) -> None:
        """Adds what came from the engine's thread. A sequence is no longer ours after its terminal message."""
        match delivery:
            case Started():
                self._start()
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
        """Ends the answer with an error, and gives up what still runs."""
        if not self._queue.ended:
            self._queue.fail(error)
            self._left()

    def events(self) -> AsyncIterator[Event]:
        return self._queue.events()

    async def aclose(self) -> None:
        self._queue.close()

    def _start(self) -> None:
        self._begun.set()
        if self._limit is not None:
            seconds, error = self._limit
            self._limit = None
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.fail, error)

    def _finish(self, finished: Finished) -> None:
        self._open.discard(finished.sequence)
        self._completion_tokens += finished.completion_tokens
        self._reasoning_tokens += finished.reasoning_tokens
        self._prompt_uses.append(finished.prompt_use)
        if self._open:
            self._queue.put(finished.events)
        else:
            self._queue.put([*finished.events, self._done()], last=True)
            self._settle()

    def _left(self) -> None:
        """Gives up what still runs."""
        self._settle()
        if self._open:
            self._abort(sorted(self._open))

    def _settle(self) -> None:
        self._begun.set()
        if self._deadline is not None:
            self._deadline.cancel()

    def _done(self) -> Done:
        """All choices have the same prompt: what one of them took over from another is not from an earlier request."""
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


async def prompt_read(reading: RunningAnswer, request: GenerationRequest) -> AsyncGenerator[Event, None]:
    """The events of a request for no tokens: its prompt has been read, into the prefix cache. `reading` generates one
    token, because a prompt is read to its end only for the token that follows; nobody sees that token."""
    usage = (await collect(reading.events())).usage
    for choice in range(request.n):
        if request.logprobs is not None:
            yield TextDelta(choice, "", ())
        yield ChoiceFinished(choice, "length")
    yield Done(msgspec.structs.replace(usage, completion_tokens=0, reasoning_tokens=0))
