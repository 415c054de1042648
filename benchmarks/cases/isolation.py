"""Measures how hits and generations disturb each other, the start, and unloading."""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import psutil

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import HOST, Connection, UnexpectedResponse, fetch, get, post, post_chat
from benchmarks.model_folders import demo_model
from benchmarks.ports import free_port
from benchmarks.processes import process, until_ready
from benchmarks.request_bodies import small_chat, story

GENERATIONS = 2
HITS_A_SECOND = 500
WINDOW_SECONDS = 5.0
HEALTH = get("/health")
HIT = post_chat(small_chat())
POLL_SECONDS = 0.005
# Suppresses the demo model's end of turn, so that a generation lasts until its client leaves.
NO_END = {"logit_bias": {"2": -100}}


async def run(run: Run) -> dict[str, float]:
    model = str(await asyncio.to_thread(demo_model))
    async with _served(run, model):
        pass  # Python's caches and the model's digests are there from now on.
    async with _served(run, model) as (server, port, _):
        returned = await _returned(server, port, run.pick(3, 1))
    async with _served(run, model) as (_, port, seconds_to_health):
        await fetch(port, HIT)
        rounds = run.pick(4, 1)
        idle = [each for _ in range(rounds) for each in await _hits(port)]
        busy: list[float] = []
        alone = beside_hits = 0.0
        async with _generations(port) as tokens:
            for _ in range(rounds):
                alone += await _count(tokens, asyncio.sleep(WINDOW_SECONDS))
                beside_hits += await _count(tokens, _extend(busy, port))
    return {
        "/health after the start": seconds_to_health,
        "hit beside two generations, p99": _p99(busy),
        "hit beside two generations, p50": statistics.median(busy) * 1e3,
        "hit beside nothing, p99": _p99(idle),
        "hit beside nothing, p50": statistics.median(idle) * 1e3,
        "tokens/s beside 500 hits/s over beside none": beside_hits / alone,
        "tokens beside 500 hits/s": beside_hits / rounds,
        "tokens beside no hits": alone / rounds,
        "memory returned after unload": returned,
    }


@asynccontextmanager
async def _served(run: Run, model: str) -> AsyncIterator[tuple[int, int, float]]:
    """Yields process id, port, and seconds from the start to the first answer."""
    port = free_port()
    log = run.scratch / f"service-{port}.log"
    command = [sys.executable, "-P", "-m", "service.cli", "serve", model, "--host", HOST, "--port", str(port)]
    started = time.perf_counter()
    async with process(command, log) as server:
        while True:
            try:
                await fetch(port, HEALTH)
                break
            except OSError:
                await asyncio.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
        await until_ready(server, log, port, "/health", lambda response: response.json()["status"] == "healthy")
        yield server.pid, port, seconds


async def _returned(server: int, port: int, rounds: int) -> float:
    """Returns the median share of a load's memory that the unload gave back."""
    name = (await fetch(port, get("/v1/models"))).json()["data"][0]["id"]
    shares: list[float] = []
    await fetch(port, post(f"/v1/models/{name}/unload", b""))
    for _ in range(rounds):
        before = _tree_bytes(server)
        await fetch(port, post(f"/v1/models/{name}/load", b""))
        await fetch(port, post_chat(story(0, tokens=8, stream=False)))
        loaded = _tree_bytes(server)
        await fetch(port, post(f"/v1/models/{name}/unload", b""))
        shares.append((loaded - _tree_bytes(server)) / (loaded - before))
    return statistics.median(shares)


def _tree_bytes(server: int) -> int:
    """Returns the bytes that no other process shares."""
    process = psutil.Process(server)
    return sum(each.memory_full_info().uss for each in (process, *process.children(recursive=True)))


async def _hits(port: int) -> list[float]:
    """Sends hits for one window at an even pace. Returns the seconds that each took."""
    seconds: list[float] = []
    await _extend(seconds, port)
    return seconds


async def _extend(seconds: list[float], port: int) -> None:
    async with Connection(port) as connection:
        begin = time.perf_counter()
        for number in range(int(HITS_A_SECOND * WINDOW_SECONDS)):
            await asyncio.sleep(max(0.0, begin + number / HITS_A_SECOND - time.perf_counter()))
            started = time.perf_counter()
            response = await connection.send(HIT)
            seconds.append(time.perf_counter() - started)
        if b"anyclaude; hit" not in response.head:
            raise UnexpectedResponse(f"Expected a hit, found {response.head!r}")


@asynccontextmanager
async def _generations(port: int) -> AsyncIterator[list[int]]:
    """Keeps endless streams running inside the block. The list counts their events with text."""
    tokens = [0] * GENERATIONS
    tasks = [asyncio.create_task(_read_stream(port, number, tokens)) for number in range(GENERATIONS)]
    try:
        while not all(tokens):  # noqa: ASYNC110 - the tasks set no event
            await asyncio.sleep(POLL_SECONDS)
        yield tokens
        if any(task.done() for task in tasks):
            raise UnexpectedResponse("Expected the generations to outlast the measurement, but one has ended")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_stream(port: int, number: int, tokens: list[int]) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(post_chat(story(number, tokens=4_000, stream=True) | NO_END))
        async for line in reader:
            tokens[number] += b'"content":"' in line and b'"content":""' not in line
    finally:
        writer.close()


async def _count(tokens: list[int], window: Awaitable[object]) -> float:
    """Tokens a second while `window` lasts."""
    before, started = sum(tokens), time.perf_counter()
    await window
    return (sum(tokens) - before) / (time.perf_counter() - started)


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] * 1e3


CASE = Case(
    title="Hits and generations beside each other, on the demo model",
    measures=(
        Measure(name="/health after the start", unit="s", at_most=0.5),
        # Half of the time with MLX on a thread of the server.
        Measure(name="hit beside two generations, p99", unit="ms", at_most=3.55),
        Measure(name="hit beside two generations, p50", unit="ms"),
        Measure(name="hit beside nothing, p99", unit="ms"),
        Measure(name="hit beside nothing, p50", unit="ms"),
        Measure(name="tokens/s beside 500 hits/s over beside none"),
        Measure(name="tokens beside 500 hits/s", unit="tokens/s"),
        Measure(name="tokens beside no hits", unit="tokens/s"),
        Measure(name="memory returned after unload", at_least=0.95),
    ),
    run=run,
    timeout_seconds=300.0,
)
