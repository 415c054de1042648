import logging
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import msgspec

from service.executor.prefix.file import Buffer, SpanKey, write_span

log = logging.getLogger(__name__)

# How long a file waits for the engine to rest before it is written beside the decoding.
PATIENCE_SECONDS = 2.0

# How long the last files may take when the server stops.
CLOSE_SECONDS = 8.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path
    key: SpanKey
    layouts: tuple[Any, ...]
    buffers: list[Buffer]
    write_before: float

    @property
    def nbytes(self) -> int:
        return sum(len(buffer.data) for buffer in self.buffers)


class Written(NamedTuple):
    """`file_bytes` is None if the file could not be written."""

    job: Job
    file_bytes: int | None


class PrefixWriter:
    """Writes files in order on a thread of its own, which never calls MLX. The engine's thread calls all methods."""

    def __init__(self) -> None:
        self.backlog_bytes = 0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Written] = SimpleQueue()
        self._resting = threading.Event()
        self._resting.set()
        self._thread = threading.Thread(target=self._run, name="prefix-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        self.backlog_bytes += job.nbytes
        self._jobs.put(job)

    def rest(self, resting: bool) -> None:
        if resting:
            self._resting.set()
        else:
            self._resting.clear()

    def written(self) -> list[Written]:
        """Returns what was done since the last call."""
        done: list[Written] = []
        while True:
            try:
                done.append(self._done.get_nowait())
            except Empty:
                return done
            self.backlog_bytes -= done[-1].job.nbytes

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        self._resting.set()
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("The prefix cache could not be written to the end within %g seconds", CLOSE_SECONDS)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._resting.wait(max(0.0, job.write_before - time.monotonic()))
            try:
                size = write_span(job.folder, job.key, job.layouts, job.buffers)
            except OSError as exc:
                log.warning("A prefix file could not be written: %s", exc)
                size = None
            self._done.put(Written(job, size))
