"""Measures how long a short request waits while a long prompt is read, and what it costs the long one."""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import fetch, get, post_chat, stream
from benchmarks.model_folders import demo_model
from benchmarks.processes import NO_CACHES, service
from benchmarks.request_bodies import prose, story

LONG_WORDS = 2_000
# Both caches are off, so that every prompt is read.
PAUSE_SECONDS = 0.01


async def run(run: Run) -> dict[str, float]:
    numbers = itertools.count(1000)
    words = run.pick(LONG_WORDS, 600)
    async with service(run.scratch, str(demo_model()), **NO_CACHES) as port:
        await _start_seconds(port, numbers)
        alone = [await _start_seconds(port, numbers) for _ in range(run.pick(7, 3))]
        long_alone = await _read_long(port, words, seed=0)
        behind: list[float] = []
        slowed = [await _read_beside(port, words, seed, numbers, behind) for seed in range(1, run.pick(3, 1) + 1)]
    return {
        "short behind long over short alone": statistics.median(behind) / statistics.median(alone),
        "short behind long over short alone, worst": max(behind) / statistics.median(alone),
        "long beside short over long alone": statistics.median(slowed) / long_alone,
        "first token of a short request, alone": statistics.median(alone) * 1e3,
        "first token of a short request, behind a long one": statistics.median(behind) * 1e3,
    }


async def _start_seconds(port: int, numbers: Iterator[int]) -> float:
    return (await stream(port, post_chat(story(next(numbers), tokens=4, stream=True)))).first_text_seconds


async def _read_beside(port: int, words: int, seed: int, numbers: Iterator[int], behind: list[float]) -> float:
    """Returns the seconds of the long prompt while short requests follow one another."""
    long = asyncio.create_task(_read_long(port, words, seed))
    while (await fetch(port, get("/health"))).json()["running"] == 0:  # noqa: ASYNC110 - the server has no event
        await asyncio.sleep(PAUSE_SECONDS)
    while True:
        await asyncio.sleep(random.Random(seed + len(behind)).uniform(0.0, 0.5))  # noqa: S311 - not in step with it
        seconds = await _start_seconds(port, numbers)
        if long.done():
            return await long
        behind.append(seconds)


async def _read_long(port: int, words: int, seed: int) -> float:
    text = prose(random.Random(seed), words)  # noqa: S311
    body: dict[str, Any] = {"model": "default_model", "messages": [{"role": "user", "content": text}], "max_tokens": 1}
    started = time.perf_counter()
    await fetch(port, post_chat(body))
    return time.perf_counter() - started


CASE = Case(
    title="A short request while a prompt of 2,000 tokens is read, demo model",
    measures=(
        Measure(name="short behind long over short alone", at_most=2.5),
        Measure(name="short behind long over short alone, worst"),
        Measure(name="long beside short over long alone"),
        *(
            Measure(name=f"first token of a short request, {when}", unit="ms")
            for when in ("alone", "behind a long one")
        ),
    ),
    run=run,
    timeout_seconds=400.0,
)
