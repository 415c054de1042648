"""Measures `GET /health` during two generations and a long prefill."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import Connection, Response, UnexpectedResponse, fetch, get, post_chat
from benchmarks.model_folders import demo_model
from benchmarks.processes import service
from benchmarks.request_bodies import long_prompt, story

GENERATIONS = 2
PAUSE_SECONDS = 0.01
IDLE_REQUESTS = 200
HEALTH = get("/health")
# Suppresses the demo model's end of turn, so that a generation lasts until its client leaves.
NO_END = {"logit_bias": {"2": -100}}


async def run(run: Run) -> dict[str, float]:
    async with service(run.scratch, str(demo_model()), maxConcurrency=GENERATIONS + 1) as port:
        await fetch(port, post_chat(story(0, tokens=4)))
        requests = itertools.count()
        idle = await _time_health(port, lambda: next(requests) < IDLE_REQUESTS)
        endless = [story(number, tokens=4_000, stream=True) | NO_END for number in range(GENERATIONS)]
        async with _asked(port, endless) as generations:
            await _until_running(port, GENERATIONS)
            async with _asked(port, [long_prompt(run.pick(2_000, 300))]) as (prefill,):
                busy = await _time_health(port, lambda: not prefill.done())
                await prefill
            if any(generation.done() for generation in generations):
                raise UnexpectedResponse("Expected the generations to outlast the prefill, but one has ended")
    return {
        "beside two generations and a prefill, p99": statistics.quantiles(busy, n=100)[98] * 1e3,
        "beside two generations and a prefill, p50": statistics.median(busy) * 1e3,
        "beside nothing, p50": statistics.median(idle) * 1e3,
    }


@asynccontextmanager
async def _asked(port: int, bodies: list[dict[str, Any]]) -> AsyncIterator[list[asyncio.Task[Response]]]:
    """Keeps the requests running inside the block, and abandons them at its end."""
    tasks = [asyncio.create_task(fetch(port, post_chat(body))) for body in bodies]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_running(port: int, sequences: int) -> None:
    while True:
        health = (await fetch(port, HEALTH)).json()
        if health["running"] >= sequences:
            return
        await asyncio.sleep(PAUSE_SECONDS)


async def _time_health(port: int, go_on: Callable[[], bool]) -> list[float]:
    seconds = []
    async with Connection(port) as connection:
        while go_on():
            started = time.perf_counter()
            await connection.send(HEALTH)
            seconds.append(time.perf_counter() - started)
            await asyncio.sleep(PAUSE_SECONDS)
    return seconds


CASE = Case(
    title="GET /health while the demo model works",
    measures=(
        Measure(name="beside two generations and a prefill, p99", unit="ms", at_most=25),
        Measure(name="beside two generations and a prefill, p50", unit="ms"),
        Measure(name="beside nothing, p50", unit="ms"),
    ),
    run=run,
)
