"""Measures how soon an abandoned request frees its place, and what stays in memory."""

import asyncio
import random
import statistics
import time
from contextlib import suppress

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import HOST, Connection, fetch, get, post_chat
from benchmarks.model_folders import tiny_model
from benchmarks.processes import NO_CACHES, service
from benchmarks.request_bodies import long_prompt, story

ABORTS = 200
PROMPT_TOKENS = 1_000
HEALTH = get("/health")
PAUSE_SECONDS = 0.002


class Steps:
    """Collects the seconds between pieces of streams. A step writes one piece, unless it ends inside a character."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else 0.0

    async def read(self, reader: asyncio.StreamReader) -> None:
        last = None
        async for line in reader:
            if b'"content":"' in line and b'"content":""' not in line:
                now = time.perf_counter()
                if last is not None:
                    self.seconds.append(now - last)
                last = now


async def run(run: Run) -> dict[str, float]:
    moments = random.Random(200)  # noqa: S311
    count, steps = run.pick(ABORTS, 20), Steps()
    async with service(run.scratch, str(await tiny_model(run)), **NO_CACHES) as port, Connection(port) as health:
        await fetch(port, post_chat(long_prompt(PROMPT_TOKENS)))
        before = await _engine_mb(port)
        freed = [await _abort(port, health, moments.uniform(0.0, 0.5), steps) for _ in range(count)]
        after = await _engine_mb(port)
    return {
        "place free, worst, less a step": (max(freed) - steps.p99) * 1e3,
        "memory of the engine, after less before": after - before,
        "place free, worst": max(freed) * 1e3,
        "place free, median": statistics.median(freed) * 1e3,
        "step, p99": steps.p99 * 1e3,
    }


async def _abort(port: int, health: Connection, seconds: float, steps: Steps) -> float:
    """Returns the seconds from the client's departure until nothing runs or waits."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(post_chat(long_prompt(PROMPT_TOKENS) | {"max_tokens": 2_000, "stream": True}))
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await steps.read(reader)
    left = time.perf_counter()
    writer.transport.abort()
    while (status := (await health.send(HEALTH)).json())["running"] + status["waiting"] > 0:  # noqa: ASYNC110
        await asyncio.sleep(PAUSE_SECONDS)
    return time.perf_counter() - left


async def _engine_mb(port: int) -> float:
    """A short request goes first, so that the same state is always left."""
    await fetch(port, post_chat(story(1, tokens=4)))
    lines = (await fetch(port, get("/metrics"))).body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("anyclaude_engine_memory_bytes ")) / 1e6


CASE = Case(
    title="200 clients that leave at random points, tiny model",
    measures=(
        Measure(name="place free, worst, less a step", unit="ms", at_most=100),
        Measure(name="memory of the engine, after less before", unit="MB", at_most=1),
        Measure(name="place free, worst", unit="ms"),
        Measure(name="place free, median", unit="ms"),
        Measure(name="step, p99", unit="ms"),
    ),
    run=run,
    runs=1,
)
