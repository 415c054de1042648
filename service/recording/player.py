import time
from pathlib import Path

import msgspec

from cache_backends import BackendStats
from cache_backends.base import Found
from service.errors import NotRecorded
from service.executor.base import Answer, AnswerFromEvents, ExecutorStatus, event_stream
from service.generation import GenerationRequest
from service.normalize import normalize
from service.profile import ModelProfile
from service.queries import Finding, ListPrefixes, PrefixesFound, Query
from service.recording.archive import AnswerEntry, ArchiveError, CountEntry, read_entries, read_header
from service.response_cache.key import RequestKeys
from service.response_cache.record import AnswerRecord, encode_record


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    path: Path
    profile: ModelProfile
    answers: dict[str, AnswerRecord]
    counts: dict[str, int]


def read_recording(path: Path) -> Recording:
    """Raises ArchiveError."""
    profile = read_header(path).profile
    if profile is None:
        raise ArchiveError(
            f"{path} does not say which model its answers are of, so no request can find its own. Replay a file made "
            "by 'anyclaude serve --record'; this one is for 'anyclaude cache import'."
        )
    recording = Recording(path=path, profile=profile, answers={}, counts={})
    for entry in read_entries(path):
        match entry:
            case AnswerEntry():
                # An answer from the future would stay fresh for ever.
                stored_at = min(entry.stored_at, time.time())
                recording.answers[entry.key] = AnswerRecord(entry.key, stored_at, entry.completion)
            case CountEntry():
                recording.counts[entry.key] = entry.prompt_tokens
    return recording


class ReplayExecutor:
    """Raises `NotRecorded` for requests without a recorded answer."""

    def __init__(self, recording: Recording) -> None:
        self.profile = recording.profile
        self._recording = recording
        self._keys = RequestKeys()

    def status(self) -> ExecutorStatus:
        return ExecutorStatus(state="healthy", detail=f"replaying {self._recording.path.name}")

    async def start(self) -> None:
        return None

    async def identify(self) -> None:
        """Its profile is complete."""

    async def submit(self, request: GenerationRequest) -> Answer:
        key = self._key(request)
        record = self._recording.answers.get(key)
        if record is None:
            raise self._not_recorded("answer to this request", key)
        return AnswerFromEvents(record.completion.usage.prompt_tokens, event_stream(record.completion))

    async def count_tokens(self, request: GenerationRequest) -> int:
        key = self._key(request)
        count = self._recording.counts.get(key)
        if count is None:
            raise self._not_recorded("count of this request's tokens", key)
        return count

    async def ask(self, query: Query) -> Finding:
        if isinstance(query, ListPrefixes):
            return PrefixesFound([])
        raise NotRecorded(f"The recording {self._recording.path.name} has no tokenizer.")

    async def aclose(self) -> None:
        return None

    def _key(self, request: GenerationRequest) -> str:
        return self._keys.key(self.profile.fingerprint, normalize(request))

    def _not_recorded(self, what: str, key: str) -> NotRecorded:
        return NotRecorded(
            f"The recording {self._recording.path.name} has no {what} (key {key}). Record it with "
            "'anyclaude serve --record'; 'anyclaude cache explain' shows where two requests part."
        )


class RecordedAnswers:
    """The recording as a `CacheBackend`. `set` does nothing."""

    def __init__(self, recording: Recording) -> None:
        self._answers = recording.answers

    async def get(self, key: str) -> Found | None:
        record = self._answers.get(key)
        return None if record is None else Found(encode_record(record))

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        return None

    async def delete(self, key: str) -> bool:
        return False

    async def clear(self) -> int:
        return 0

    async def stats(self) -> BackendStats:
        return BackendStats(backend="recording", items=len(self._answers))

    async def aclose(self) -> None:
        return None
