"""How soon the place of a client that went away is free again, wherever its generation was, and what stays behind."""

import asyncio
import random
import statistics
import time

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import HOST, Connection, fetch, get, post_json
from benchmarks.model_folders import tiny_model
from benchmarks.processes import service
from benchmarks.request_bodies import long_prompt, story

ABORTS = 200
PROMPT_TOKENS = 1_000
CHAT = "/v1/chat/completions"
HEALTH = get("/health")
PAUSE_SECONDS = 0.002
NO_CACHES = {"cachePolicy": "off", "prefixCache": {"memory": "0", "disk": "0"}}


async def run(run: Run) -> dict[str, float]:
    moments = random.Random(200)  # noqa: S311
    count = run.pick(ABORTS, 20)
    async with service(run.scratch, str(await tiny_model(run)), **NO_CACHES) as port, Connection(port) as health:
        await fetch(port, post_json(CHAT, long_prompt(PROMPT_TOKENS)))
        before = await _engine_mb(port)
        freed = [await _abort(port, health, moments.uniform(0.0, 0.5)) for _ in range(count)]
        after = await _engine_mb(port)
    return {
        "place free, worst": max(freed) * 1e3,
        "memory of the engine, after less before": after - before,
        "place free, median": statistics.median(freed) * 1e3,
    }


async def _abort(port: int, health: Connection, seconds: float) -> float:
    """Seconds from the client's leaving until nothing runs or waits."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(post_json(CHAT, long_prompt(PROMPT_TOKENS) | {"max_tokens": 2_000, "stream": True}))
    await writer.drain()
    await asyncio.sleep(seconds)
    left = time.perf_counter()
    writer.transport.abort()
    while (status := (await health.send(HEALTH)).json())["running"] + status["waiting"] > 0:  # noqa: ASYNC110
        await asyncio.sleep(PAUSE_SECONDS)
    return time.perf_counter() - left


async def _engine_mb(port: int) -> float:
    """What model and KV state hold once a short request has come last."""
    await fetch(port, post_json(CHAT, story(1, tokens=4)))
    lines = (await fetch(port, get("/metrics"))).body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("anyclaude_engine_memory_bytes ")) / 1e6


CASE = Case(
    title="200 clients that leave at random points, tiny model",
    measures=(
        # A step of this model takes about 10 ms.
        Measure(name="place free, worst", unit="ms", at_most=110),
        Measure(name="memory of the engine, after less before", unit="MB", at_most=1),
        Measure(name="place free, median", unit="ms"),
    ),
    run=run,
    runs=1,
)
