"""A deterministic executor without a model, for tests and trials.

A script is an async generator over one request. Each text that it yields is one token; events pass unchanged.
"""

import asyncio
import re
import struct
from base64 import b64encode
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from service.errors import ContextLengthExceeded, EngineFailed, ServiceError
from service.events import (
    ChoiceFinished,
    Done,
    Event,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from service.executor.base import Answer, AnswerFromEvents, ExecutorStatus
from service.executor.output.held_logprobs import HeldLogprobs
from service.executor.output.string_finder import StringFinder
from service.generation import GenerationRequest, RawPrompt, TokenLogprob, TopLogprob, Usage
from service.profile import ModelProfile
from service.queries import (
    Detokenize,
    Finding,
    ListPrefixes,
    PrefixBranch,
    PrefixesFound,
    Query,
    TextFound,
    Tokenize,
    TokensFound,
)

Script = Callable[[GenerationRequest], AsyncIterator[str | Event]]

REMEMBERED_REQUESTS = 100

PROFILE = ModelProfile(id="scripted", fingerprint="scripted-1", context_length=200_000)


async def echo(request: GenerationRequest) -> AsyncIterator[str | Event]:
    """Repeats the last user message word by word, or calls the required tool, by default the first."""
    if request.raw_prompt is not None and request.raw_prompt.embeds:
        yield scripted_embedding(request.raw_prompt)
        return
    if request.tools and request.tool_choice.mode == "required":
        yield ToolCallStarted(0, "call_0", request.tool_choice.name or request.tools[0].name)
        yield ToolCallDelta(0, "{}")
        return
    text = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    if request.raw_prompt is not None:
        text = raw_text(request.raw_prompt)
    for word in re.findall(r"\S+\s*", text):
        yield word


def raw_text(raw: RawPrompt) -> str:
    """Each token is a code point."""
    text = raw.text if raw.tokens is None else "".join(map(_character, raw.tokens))
    return text if raw.suffix is None else f"{text}...{raw.suffix}"


def _character(code_point: int) -> str:
    return "\ufffd" if code_point > 0x10FFFF or 0xD800 <= code_point < 0xE000 else chr(code_point)


def scripted_embedding(raw: RawPrompt) -> str:
    """Counts the letters a to h."""
    text = raw_text(raw)
    return b64encode(struct.pack("<8f", *(text.count(letter) for letter in "abcdefgh"))).decode()


def count_words(request: GenerationRequest) -> int:
    """Each word is a token; tool definitions count a quarter of their bytes."""
    if request.raw_prompt is not None:
        return len(raw_text(request.raw_prompt).split())
    words = sum(len(m.content.split()) + len(m.tool_calls) for m in request.messages)
    return words + len(msgspec.json.encode(request.tools)) // 4 if request.tools else words


class ScriptedExecutor:
    """Plays `script` for every request, `concurrency` at a time. `aborted` counts answers whose reader left."""

    def __init__(self, script: Script = echo, *, profile: ModelProfile = PROFILE, concurrency: int = 2) -> None:
        self.profile = profile
        self.submitted: deque[GenerationRequest] = deque(maxlen=REMEMBERED_REQUESTS)
        self.aborted = 0
        self.running = 0
        self.waiting = 0
        self.generated_tokens = 0
        self.read_tokens = 0
        self.prefixes: list[PrefixBranch] = []
        self.state: ExecutorStatus = ExecutorStatus(state="healthy")
        self._script = script
        self._places = asyncio.Semaphore(concurrency)

    def status(self) -> ExecutorStatus:
        return msgspec.structs.replace(
            self.state,
            running=self.running,
            waiting=self.waiting,
            generated_tokens=self.generated_tokens,
            read_tokens=self.read_tokens,
        )

    async def start(self) -> None:
        return None

    async def identify(self) -> None:
        """Its profile is complete."""

    async def submit(self, request: GenerationRequest) -> Answer:
        prompt_tokens = await self.count_tokens(request)
        if prompt_tokens >= self.profile.context_length:
            raise ContextLengthExceeded(prompt_tokens, self.profile.context_length)
        self.submitted.append(request)
        return AnswerFromEvents(prompt_tokens, self.play(request, prompt_tokens))

    async def count_tokens(self, request: GenerationRequest) -> int:
        return count_words(request)

    async def ask(self, query: Query) -> Finding:
        match query:
            case Tokenize(text):
                return TokensFound(tuple(map(ord, text)), tuple(character.encode() for character in text))
            case Detokenize(tokens):
                return TextFound(raw_text(RawPrompt(tokens=tokens)))
            case ListPrefixes():
                return PrefixesFound(self.prefixes)

    async def aclose(self) -> None:
        return None

    async def play(self, request: GenerationRequest, prompt_tokens: int) -> AsyncGenerator[Event, None]:
        complete = False
        try:
            async with self._place():
                tokens = 0
                self.read_tokens += prompt_tokens
                for choice in range(request.n):
                    writer = _ChoiceWriter(choice, request, self._count_token)
                    async for event in _play(self._script(request), writer):
                        yield event
                    tokens += writer.tokens
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

    def _count_token(self) -> None:
        self.generated_tokens += 1

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


async def _play(script: AsyncIterator[str | Event], writer: "_ChoiceWriter") -> AsyncIterator[Event]:
    if not writer.ended:
        async for item in script:
            for event in writer.feed(item):
                yield event
            if writer.ended:
                break
    for event in writer.finish():
        yield event


class _ChoiceWriter:
    """`tokens` counts the items of the script, including one that a stop string cut."""

    def __init__(self, choice: int, request: GenerationRequest, on_token: Callable[[], None]) -> None:
        self.tokens = 0
        self._on_token = on_token
        self.ended = request.max_tokens == 0
        self._choice = choice
        self._budget = request.max_tokens
        self._top = request.logprobs
        self._stops = StringFinder(request.stop)
        self._logprobs = HeldLogprobs()
        self._end = ChoiceFinished(choice, "length" if self.ended else "stop")

    def feed(self, item: str | Event) -> list[Event]:
        if isinstance(item, Done):
            self.ended = True
            return []
        if isinstance(item, str):
            item = TextDelta(self._choice, item, _logprobs(item, self._top))
        item = msgspec.structs.replace(item, choice=self._choice)
        if isinstance(item, ChoiceFinished):
            self._finish(item)
            return []
        self.tokens += 1
        self._on_token()
        events = self._text(item) if isinstance(item, TextDelta) else [*self._flush(), item]
        if isinstance(item, ToolCallStarted):
            self._end = ChoiceFinished(self._choice, "tool_calls")
        if self._stops.found is not None:
            self._finish(ChoiceFinished(self._choice, "stop", self._stops.found))
        elif self.tokens == self._budget:
            self._finish(ChoiceFinished(self._choice, "length"))
        return events

    def finish(self) -> list[Event]:
        asked: list[Event] = [] if self._top is None else [TextDelta(self._choice, "", ())]
        return [*self._flush(), *asked, msgspec.structs.replace(self._end, tokens=self.tokens)]

    def _finish(self, end: ChoiceFinished) -> None:
        self._end = end
        self.ended = True

    def _text(self, delta: TextDelta) -> list[Event]:
        for logprob in delta.logprobs or ():
            self._logprobs.add(logprob, len(logprob.token))
        return self._release(self._stops.feed(delta.text)[0])

    def _flush(self) -> list[Event]:
        return self._release(self._stops.finish())

    def _release(self, text: str) -> list[Event]:
        logprobs = self._logprobs.release(len(text), held=bool(self._stops.held))
        return [TextDelta(self._choice, text, None if self._top is None else logprobs)] if text or logprobs else []


def _logprobs(token: str, top: int | None) -> tuple[TokenLogprob, ...] | None:
    if top is None:
        return None
    alternatives = tuple(TopLogprob(token if i == 0 else f"alt{i}", b"", -float(i)) for i in range(top))
    return (TokenLogprob(token, token.encode(), 0.0, alternatives),)
