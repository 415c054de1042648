"""Measures tokens per second over all requests against `mlx_lm.server`."""

import asyncio
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import fetch, post_chat
from benchmarks.model_folders import dense_demo, tiny_model
from benchmarks.processes import NO_PREFIX_CACHE, watched_module_server, watched_service
from benchmarks.processor_time import page_faults, processor_seconds
from benchmarks.request_bodies import story

MAX_CONCURRENCY = 8
CONCURRENCIES = (1, 4, 8)


class Load(msgspec.Struct, frozen=True):
    """Each client sends `requests` one after another. Rounds are short and many, because the machine's speed changes
    by a tenth within a minute. There are `rounds` for each order of starting the servers."""

    model: str
    tokens: int
    requests: int
    rounds: int


LOADS = (Load("demo", tokens=32, requests=1, rounds=3), Load("tiny", tokens=64, requests=4, rounds=5))


class Pace(msgspec.Struct, frozen=True):
    """Tokens a second, and processor milliseconds and page faults a token."""

    rate: float
    processor: float
    faults: float


class Side(msgspec.Struct, frozen=True):
    port: int
    pid: int


QUICK_LOADS = tuple(msgspec.structs.replace(load, tokens=8, requests=1, rounds=1) for load in LOADS)


async def run(run: Run) -> dict[str, float]:
    models = {"demo": await dense_demo(run), "tiny": await tiny_model(run)}
    values: dict[str, float] = {}
    for load in QUICK_LOADS if run.quick else LOADS:
        values |= await _compare(load, models[load.model], run.scratch)
    return values


async def _compare(load: Load, model: Path, scratch: Path) -> dict[str, float]:
    paces: dict[str, list[tuple[Pace, Pace]]] = defaultdict(list)
    # No prompt is repeated, so that neither side answers from a cache.
    numbers = itertools.count(1000)
    # Of two equal servers, the first to start was up to 3 % slower in some comparisons.
    for ours_first in (False, True):
        async with _both(model, scratch, ours_first=ours_first) as (ours, theirs):
            for warmed in (ours, theirs):
                await _generate(warmed, numbers, MAX_CONCURRENCY, load, stream=False)
            for stream, concurrency in itertools.product((False, True), CONCURRENCIES):
                for number in range(load.rounds):
                    in_turn = (ours, theirs) if number % 2 else (theirs, ours)
                    measured = {
                        side.pid: await _generate(side, numbers, concurrency, load, stream=stream) for side in in_turn
                    }
                    name = _name(load.model, concurrency, stream=stream)
                    paces[name].append((measured[ours.pid], measured[theirs.pid]))
    values: dict[str, float] = {}
    for name, pairs in paces.items():
        values |= _summary(name, pairs)
    return values


@asynccontextmanager
async def _both(model: Path, scratch: Path, *, ours_first: bool) -> AsyncIterator[tuple[Side, Side]]:
    """Yields our server and mlx-lm's."""
    peer_arguments = (str(model), str(MAX_CONCURRENCY))
    servers = {
        "ours": watched_service(scratch, str(model), maxConcurrency=MAX_CONCURRENCY, **NO_PREFIX_CACHE),
        "theirs": watched_module_server(scratch, "benchmarks.peers.mlx_lm_server", *peer_arguments),
    }
    async with AsyncExitStack() as stack:
        order = ("ours", "theirs") if ours_first else ("theirs", "ours")
        sides = {name: Side(*await stack.enter_async_context(servers[name])) for name in order}
        yield sides["ours"], sides["theirs"]


def _summary(name: str, paces: list[tuple[Pace, Pace]]) -> dict[str, float]:
    return {
        f"{name}, over mlx_lm.server": statistics.median(our.rate / their.rate for our, their in paces),
        f"{name}, processor time over mlx_lm.server": statistics.median(
            our.processor / their.processor for our, their in paces
        ),
        name: statistics.median(our.rate for our, _ in paces),
        f"{name}, processor time a token": statistics.median(our.processor for our, _ in paces),
        f"{name}, page faults a token": statistics.median(our.faults for our, _ in paces),
        f"{name}, page faults a token of mlx_lm.server": statistics.median(their.faults for _, their in paces),
    }


async def _generate(side: Side, numbers: Iterator[int], concurrency: int, load: Load, *, stream: bool) -> Pace:
    """Measures from the start to the last answer."""
    bodies = [story(next(numbers), load.tokens, stream=stream) for _ in range(concurrency * load.requests)]
    requests = iter([post_chat(body) for body in bodies])
    started, used, faults = time.perf_counter(), processor_seconds(side.pid), page_faults(side.pid)
    tokens = await asyncio.gather(*(_ask_in_turn(side.port, requests, stream=stream) for _ in range(concurrency)))
    seconds, used = time.perf_counter() - started, processor_seconds(side.pid) - used
    faults = page_faults(side.pid) - faults
    return Pace(sum(tokens) / seconds, used / sum(tokens) * 1e3, faults / sum(tokens))


async def _ask_in_turn(port: int, requests: Iterator[bytes], *, stream: bool) -> int:
    """Takes the next request until none is left. Random weights end some answers early, so tokens are counted as the
    server reports them."""
    tokens = 0
    for request in requests:
        response = await fetch(port, request)
        last = response.events()[-1] if stream else response.json()
        tokens += last["usage"]["completion_tokens"]
    return tokens


def _name(model: str, concurrency: int, *, stream: bool) -> str:
    return f"{model}, {concurrency} at once, {'streamed' if stream else 'whole'}"


NAMES = [
    _name(load.model, concurrency, stream=stream)
    for load, stream, concurrency in itertools.product(LOADS, (False, True), CONCURRENCIES)
]

CASE = Case(
    title="Tokens per second against mlx_lm.server",
    measures=(
        *(Measure(name=f"{name}, over mlx_lm.server", at_least=0.98) for name in NAMES),
        *(Measure(name=f"{name}, processor time over mlx_lm.server", at_most=1.02) for name in NAMES),
        *(Measure(name=name, unit="tokens/s") for name in NAMES),
        *(Measure(name=f"{name}, processor time a token", unit="ms") for name in NAMES),
        *(
            Measure(name=f"{name}, page faults a token{of}", unit="faults")
            for name in NAMES
            for of in ("", " of mlx_lm.server")
        ),
    ),
    run=run,
    timeout_seconds=600.0,
)
