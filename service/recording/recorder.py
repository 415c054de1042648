import time
from logging import getLogger
from pathlib import Path

from service.generation import Completion
from service.profile import ModelProfile
from service.recording.archive import AnswerEntry, ArchiveWriter, CountEntry, Entry, new_header

log = getLogger(__name__)


class FileRecorder:
    """Appends to `path`. An answer that is already there is not written again."""

    def __init__(self, path: Path, profile: ModelProfile) -> None:
        """Raises ArchiveError and OSError."""
        self._path = path
        self._writer = ArchiveWriter(path, new_header(profile))
        self._written: dict[str, Completion | int] = {}

    def record_answer(self, key: str, completion: Completion) -> None:
        self._record(AnswerEntry(key=key, stored_at=time.time(), completion=completion), completion)

    def record_count(self, key: str, prompt_tokens: int) -> None:
        self._record(CountEntry(key=key, prompt_tokens=prompt_tokens), prompt_tokens)

    def close(self) -> None:
        self._writer.close()

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
