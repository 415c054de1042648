import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec

from service.device.machine import own_bytes
from service.errors import GenerationTimeout

R = TypeVar("R")

WATCH_SECONDS = 0.25
ADVICE = "The model's chat template may not end for such messages."


class JobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The whole process may grow by `max_bytes` during a job, and by what the engine may need meanwhile."""

    max_bytes: int
    # Prompts that are read beside it.
    engine_bytes_per_second: int = 100_000_000
    # A prompt of 200,000 tokens takes about a second.
    seconds: float = 30.0

    def bytes_after(self, seconds: float) -> float:
        return self.max_bytes + self.engine_bytes_per_second * seconds


def limits_for(context_length: int) -> JobLimits:
    # `estimate_excess` lets texts of 8 characters for each token of the context pass. They need up to 3.6 KiB a token:
    # 644 MB were measured for 1.4 million Chinese characters, 149 MB for a million English ones.
    prompt = min(4 * 1024 * context_length, 3 * 1024**3)
    # The engine's first chunks allocate up to a GiB at once.
    return JobLimits(max_bytes=prompt + 1024**3)


class _Job:
    """`started_at`: the loop's clock. `resident`: bytes at that time."""

    def __init__(self, function: Callable[[], Any], result: asyncio.Future[Any]) -> None:
        self.function = function
        self.result = result
        self.started_at = 0.0
        self.resident = 0


class Preparation:
    """Renders, counts and compiles on one thread. A job that exceeds a limit ends in `GenerationTimeout`, and `overrun`
    is called with the reason. The thread cannot be ended, so no other job runs after that."""

    def __init__(self, overrun: Callable[[str], None], limits: JobLimits) -> None:
        self._overrun = overrun
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._current: _Job | None = None
        self._pending = 0
        self._timer: asyncio.TimerHandle | None = None
        # No pool: Python waits for a pool's threads when it exits.
        self._thread = threading.Thread(target=self._work, name="prompts", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        job = self._current
        return 0.0 if job is None else self._loop.time() - job.started_at

    async def run(self, function: Callable[[], R]) -> R:
        """Raises what `function` raises."""
        job = _Job(function, self._loop.create_future())
        self._pending += 1
        self._jobs.put(job)
        if self._timer is None:
            self._timer = self._loop.call_later(WATCH_SECONDS, self._watch)
        try:
            result: R = await job.result
        finally:
            self._pending -= 1
        return result

    def close(self) -> None:
        """Leaves a running job behind."""
        self._jobs.put(None)
        if self._timer is not None:
            self._timer.cancel()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.result.cancelled():
                continue
            job.started_at, job.resident = self._loop.time(), own_bytes()
            self._current = job
            result, error = None, None
            try:
                result = job.function()
            except BaseException as exc:
                error = exc
            self._current = None
            with suppress(RuntimeError):  # the loop is closed and no caller is left
                self._loop.call_soon_threadsafe(_complete, job, result, error)

    def _watch(self) -> None:
        self._timer = None
        job = self._current
        why = "" if job is None else self._excess(job)
        if job is not None and why:
            _complete(job, None, GenerationTimeout(f"The request was stopped: {why}. {ADVICE}"))
            self._overrun(why)
        elif job is not None or self._pending:
            self._timer = self._loop.call_later(WATCH_SECONDS, self._watch)

    def _excess(self, job: _Job) -> str:
        limits, seconds = self._limits, self._loop.time() - job.started_at
        if seconds > limits.seconds:
            return f"its prompt was not ready within {limits.seconds:g} seconds"
        most = limits.bytes_after(seconds)
        if own_bytes() - job.resident > most:
            return f"its prompt was not ready with {most / 2**30:.2g} GiB of memory"
        return ""


def _complete(job: _Job, result: Any, error: BaseException | None) -> None:
    if job.result.done():
        return
    if error is not None:
        job.result.set_exception(error)
    else:
        job.result.set_result(result)
