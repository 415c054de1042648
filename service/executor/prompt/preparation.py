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
    # A prompt of 200,000 tokens takes about a second.
    seconds: float = 30.0
    # Growth of the whole process during one job. The engine may read some 100 MB of prompts a second meanwhile.
    max_bytes: int = 4 * 1024**3


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
        limits = self._limits
        if self._loop.time() - job.started_at > limits.seconds:
            return f"its prompt was not ready within {limits.seconds:g} seconds"
        if own_bytes() - job.resident > limits.max_bytes:
            return f"its prompt was not ready with {limits.max_bytes / 2**30:g} GiB of memory"
        return ""


def _complete(job: _Job, result: Any, error: BaseException | None) -> None:
    if job.result.done():
        return
    if error is not None:
        job.result.set_exception(error)
    else:
        job.result.set_result(result)
