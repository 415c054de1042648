"""`RecordingExecutor`: an `Executor` around another that writes down what it answers, wherever the answer came from."""

import time
from collections.abc import AsyncIterator
from logging import getLogger
from pathlib import Path

from service.events import CompletionBuilder, Event
from service.executor.base import NO_DIRECTIVES, Answer, CacheDirectives, Executor, ExecutorStatus, ModelProfile
from service.generation import Completion, GenerationRequest
from service.normalize import normalize
from service.recording.archive import AnswerEntry, ArchiveWriter, CountEntry, Entry, new_header
from service.response_cache.key import RequestKeys

log = getLogger(__name__)


class RecordingExecutor:
    """Writes complete answers to `path`, adding to what is there; the same answer again is not written again."""

    def __init__(self, inner: Executor, path: Path) -> None:
        """Raises ArchiveError and OSError."""
        self._inner = inner
        self._path = path
        self._writer = ArchiveWriter(path, new_header(inner.profile))
        self._keys = RequestKeys()
        self._written: dict[str, Completion | int] = {}

    @property
    def profile(self) -> ModelProfile:
        return self._inner.profile

    def status(self) -> ExecutorStatus:
        return self._inner.status()

    async def start(self) -> None:
        await self._inner.start()

    async def submit(self, request: GenerationRequest, directives: CacheDirectives = NO_DIRECTIVES) -> Answer:
        answer = await self._inner.submit(request, directives)
        return RecordedAnswer(answer, self, self._key(request), with_logprobs=request.logprobs is not None)

    async def count_tokens(self, request: GenerationRequest) -> int:
        count = await self._inner.count_tokens(request)
        key = self._key(request)
        self._record(CountEntry(key=key, prompt_tokens=count), count)
        return count

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._writer.close()

    def record(self, key: str, completion: Completion) -> None:
        self._record(AnswerEntry(key=key, stored_at=time.time(), completion=completion), completion)

    def _record(self, entry: Entry, content: Completion | int) -> None:
        name = f"{type(entry).__name__} {entry.key}"
        if self._written.get(name) == content:
            return
        try:
            self._writer.add(entry)
        except OSError as exc:
            log.error("an answer was not recorded in %s: %s", self._path, exc)
        else:
            self._written[name] = content

    def _key(self, request: GenerationRequest) -> str:
        return self._keys.key(self._inner.profile.fingerprint, normalize(request))


class RecordedAnswer:
    """An answer that is written down when it is complete."""

    def __init__(self, answer: Answer, recorder: RecordingExecutor, key: str, *, with_logprobs: bool) -> None:
        self.outcome = answer.outcome
        self.prompt_tokens = answer.prompt_tokens
        self._answer = answer
        self._recorder = recorder
        self._key = key
        self._with_logprobs = with_logprobs

    @property
    def stored(self) -> bool:
        return self._answer.stored

    async def events(self) -> AsyncIterator[Event]:
        builder = CompletionBuilder(with_logprobs=self._with_logprobs)
        async for event in self._answer.events():
            builder.feed(event)
            if builder.done:
                self._recorder.record(self._key, builder.build())
            yield event

    async def completion(self) -> Completion:
        completion = await self._answer.completion()
        self._recorder.record(self._key, completion)
        return completion

    async def aclose(self) -> None:
        await self._answer.aclose()
