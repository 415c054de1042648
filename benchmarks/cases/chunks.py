"""Measures the reading of prompts in chunks of the size that is measured, against a constant size."""

import random
import statistics
import time

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import fetch, post_chat
from benchmarks.model_folders import dense_demo
from benchmarks.processes import NO_CACHES, watched_service
from benchmarks.processor_time import processor_seconds
from benchmarks.request_bodies import prose

WORDS = 1_500
ROUNDS = 8
# The constant of a CPU before sizes were measured.
CONSTANT = 64


async def run(run: Run) -> dict[str, float]:
    model, words, rounds = str(await dense_demo(run)), run.pick(WORDS, 200), run.pick(ROUNDS, 1)
    async with (
        watched_service(run.scratch, model, **NO_CACHES) as measured,
        watched_service(run.scratch, model, prefillChunkTokens=CONSTANT, **NO_CACHES) as constant,
    ):
        sides = [measured, constant]
        seconds: dict[int, list[tuple[float, float]]] = {pid: [] for _, pid in sides}
        for number in range(rounds + 1):
            for port, pid in sides if number % 2 else sides[::-1]:
                seconds[pid].append(await _read(port, pid, number, words))
    # The first prompt is not counted: sizes are tried while it is read.
    ours, theirs = (seconds[pid][1:] for _, pid in sides)
    return {
        "measured size over the constant one": statistics.median(
            their[0] / our[0] for our, their in zip(ours, theirs, strict=True)
        ),
        "processor time over the constant size's": statistics.median(
            our[1] / their[1] for our, their in zip(ours, theirs, strict=True)
        ),
        "tokens read, measured size": words / statistics.median(wall for wall, _ in ours),
        "tokens read, constant size": words / statistics.median(wall for wall, _ in theirs),
    }


async def _read(port: int, pid: int, number: int, words: int) -> tuple[float, float]:
    """Returns seconds, and seconds of the processor."""
    body = {
        "model": "default_model",
        "messages": [{"role": "user", "content": f"{number} {prose(random.Random(number), words)}"}],  # noqa: S311
        "max_tokens": 1,
    }
    started, used = time.perf_counter(), processor_seconds(pid)
    await fetch(port, post_chat(body))
    return time.perf_counter() - started, processor_seconds(pid) - used


CASE = Case(
    title="Prompts in chunks of a measured size",
    measures=(
        Measure(name="measured size over the constant one", at_least=0.98),
        Measure(name="processor time over the constant size's"),
        Measure(name="tokens read, measured size", unit="tokens/s"),
        Measure(name="tokens read, constant size", unit="tokens/s"),
    ),
    run=run,
    timeout_seconds=600.0,
)
