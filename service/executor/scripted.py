"""A deterministic executor without a model: for tests, and for trying the service on any machine.

A script is an async generator over one request. What it yields becomes the answer: text is one token each,
events pass as they are. The default script repeats the last user message, word by word.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from service.errors import ContextLengthExceeded, EngineFailed, ServiceError
from service.events import (
    ChoiceFinished,
    Done,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from service.executor.base import (
    NO_DIRECTIVES,
    Answer,
    CacheDirectives,
    CacheOutcome,
    ExecutorStatus,
    ModelProfile,
    collect,
)
from service.generation import Completion, GenerationRequest, TokenLogprob, TopLogprob, Usage

Script = Callable[[GenerationRequest], AsyncIterator[str | Event]]

REMEMBERED_REQUESTS = 100

PROFILE = ModelProfile(id="scripted", fingerprint="scripted-1", context_length=200_000)


async def echo(request: GenerationRequest) -> AsyncIterator[str | Event]:
    """Repeats the last user message; calls the tool that is required, or else the first, where one must be called."""
    if request.tools and request.tool_choice.mode == "required":
        yield ToolCallStarted(0, "call_0", request.tool_choice.name or request.tools[0].name)
        yield ToolCallDelta(0, "{}")
        return
    text = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    for word in re.findall(r"\S+\s*", text):
        yield word


def count_words(request: GenerationRequest) -> int:
    """The prompt's length where a word is a token; tool definitions count by their bytes over four."""
    words = sum(len(m.content.split()) + len(m.tool_calls) for m in request.messages)
    return words + len(msgspec.json.encode(request.tools)) // 4 if request.tools else words


class ScriptedExecutor:
    """Plays `script` for every request, `concurrency` at a time, the rest queue. `submitted` are the last
    requests that were accepted, `aborted` how many lost their reader; `running` is now."""

    def __init__(self, script: Script = echo, *, profile: ModelProfile = PROFILE, concurrency: int = 2) -> None:
        self.profile = profile
        self.submitted: deque[GenerationRequest] = deque(maxlen=REMEMBERED_REQUESTS)
        self.aborted = 0
        self.running = 0
        self.waiting = 0
        self.state: ExecutorStatus = ExecutorStatus(state="ready")
        self._script = script
        self._places = asyncio.Semaphore(concurrency)

    def status(self) -> ExecutorStatus:
        return msgspec.structs.replace(self.state, running=self.running, waiting=self.waiting)

    async def start(self) -> None:
        return None

    async def submit(self, request: GenerationRequest, directives: CacheDirectives = NO_DIRECTIVES) -> Answer:
        prompt_tokens = await self.count_tokens(request)
        if prompt_tokens >= self.profile.context_length:
            raise ContextLengthExceeded(prompt_tokens, self.profile.context_length)
        self.submitted.append(request)
        return ScriptedAnswer(self, request, prompt_tokens)

    async def count_tokens(self, request: GenerationRequest) -> int:
        return count_words(request)

    async def aclose(self) -> None:
        return None

    async def play(self, request: GenerationRequest, prompt_tokens: int) -> AsyncIterator[Event]:
        """The events of one request, its choices one after another."""
        complete = False
        try:
            async with self._place():
                tokens = 0
                for choice in range(request.n):
                    async for event, cost in _play_choice(self._script(request), request, choice):
                        tokens += cost
                        yield event
            yield Done(Usage(prompt_tokens=prompt_tokens, completion_tokens=tokens))
            complete = True
        except ServiceError:
            complete = True
            raise
        except Exception as exc:
            complete = True
            raise EngineFailed("The script failed.") from exc
        finally:
            self.aborted += not complete

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()


async def _play_choice(
    script: AsyncIterator[str | Event], request: GenerationRequest, choice: int
) -> AsyncIterator[tuple[Event, int]]:
    budget = request.max_tokens
    reason = ChoiceFinished(choice, "stop")
    tokens = 0
    if budget == 0:
        yield ChoiceFinished(choice, "length"), 0
        return
    async for item in script:
        tokens += 1
        event = TextDelta(choice, item, _logprobs(item, request.logprobs)) if isinstance(item, str) else item
        if isinstance(event, ChoiceFinished | Done):
            reason = event if isinstance(event, ChoiceFinished) else reason
            break
        if isinstance(event, ToolCallStarted):
            reason = ChoiceFinished(choice, "tool_calls")
        if isinstance(event, TextDelta) and (stop := next((s for s in request.stop if s in event.text), None)):
            yield TextDelta(choice, event.text.split(stop)[0]), 1
            reason = ChoiceFinished(choice, "stop", stop)
            break
        yield _in_choice(event, choice), 1
        if budget is not None and tokens >= budget:
            reason = ChoiceFinished(choice, "length")
            break
    yield reason, 0


def _in_choice(event: Event, choice: int) -> Event:
    if isinstance(event, TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta):
        return msgspec.structs.replace(event, choice=choice)
    return event


def _logprobs(token: str, top: int | None) -> tuple[TokenLogprob, ...]:
    if top is None:
        return ()
    alternatives = tuple(TopLogprob(token if i == 0 else f"alt{i}", b"", -float(i)) for i in range(top))
    return (TokenLogprob(token, token.encode(), 0.0, alternatives),)


class ScriptedAnswer:
    """The `Answer` of a `ScriptedExecutor`."""

    outcome: CacheOutcome = "bypass"
    stored = False

    def __init__(self, executor: ScriptedExecutor, request: GenerationRequest, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self._request = request
        self._events = executor.play(request, prompt_tokens)

    def events(self) -> AsyncIterator[Event]:
        return self._events

    async def completion(self) -> Completion:
        return await collect(self._events, with_logprobs=self._request.logprobs is not None)

    async def aclose(self) -> None:
        aclose = getattr(self._events, "aclose", None)
        if aclose is not None:
            await aclose()
