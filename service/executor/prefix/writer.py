import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from service.executor.prefix.file import Buffer, SpanKey, write_span

log = logging.getLogger(__name__)

# Files are written after the engine rests this long. An agent's next turn mostly comes earlier and drops states that
# would have been written: a recurrent or sliding state takes hundreds of megabytes a turn.
QUIET_SECONDS = 30.0

# A file waits at most this long. After it, files are written during decoding.
PATIENCE_SECONDS = 300.0

# Nothing waits if the backlog exceeds this share of its limit.
PRESSURE = 0.75

# The last files may take this long when the server stops.
CLOSE_SECONDS = 8.0


class Job(msgspec.Struct, kw_only=True):
    folder: Path
    key: SpanKey
    layouts: tuple[Any, ...]
    buffers: list[Buffer]
    write_before: float
    wanted: bool = True

    @property
    def nbytes(self) -> int:
        return sum(len(buffer.data) for buffer in self.buffers)


class Written(NamedTuple):
    job: Job
    file_bytes: int | None
    seconds: float


class PrefixWriter:
    """Writes files in order on a thread of its own, which never calls MLX. The MLX thread calls all methods."""

    def __init__(self, max_backlog_bytes: int, quiet_seconds: float) -> None:
        self.backlog_bytes = 0
        self._quiet_seconds = quiet_seconds
        self._pressed_at = int(PRESSURE * max_backlog_bytes)
        self._jobs: deque[Job] = deque()
        self._done: deque[Written] = deque()
        self._changed = threading.Condition()
        self._resting_since: float | None = time.monotonic()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="prefix-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._changed:
            self.backlog_bytes += job.nbytes
            self._jobs.append(job)
            self._changed.notify()

    def drop(self, job: Job) -> None:
        with self._changed:
            self.backlog_bytes -= job.nbytes
            job.wanted, job.buffers = False, []  # frees them now
            self._changed.notify()

    def rest(self, resting: bool) -> None:
        with self._changed:
            self._resting_since = time.monotonic() if resting else None
            self._changed.notify()

    def press(self) -> None:
        """Writes the present backlog without delay, to free its memory."""
        with self._changed:
            for job in self._jobs:
                job.write_before = 0.0
            self._changed.notify()

    def written(self) -> list[Written]:
        done: list[Written] = []
        while self._done:
            done.append(self._done.popleft())
            self.backlog_bytes -= done[-1].job.nbytes
        return done

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("Part of the prefix cache is lost: it could not be written within %g seconds", CLOSE_SECONDS)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            size: int | None = 0
            started = time.monotonic()
            try:
                if job.wanted:
                    size = write_span(job.folder, job.key, job.layouts, job.buffers)
            except OSError as exc:
                log.warning("A prefix file could not be written: %s", exc)
                size = None
            self._done.append(Written(job, size, time.monotonic() - started))

    def _next(self) -> Job | None:
        """Waits until a job may be written or skipped. Returns None at the end."""
        with self._changed:
            while True:
                if self._jobs and self._wait_seconds(self._jobs[0]) <= 0:
                    return self._jobs.popleft()
                if self._closing and not self._jobs:
                    return None
                self._changed.wait(self._wait_seconds(self._jobs[0]) if self._jobs else None)

    def _wait_seconds(self, job: Job) -> float:
        if self._closing or not job.wanted or self.backlog_bytes > self._pressed_at:
            return 0.0
        quiet_at = job.write_before if self._resting_since is None else self._resting_since + self._quiet_seconds
        return min(job.write_before, quiet_at) - time.monotonic()
