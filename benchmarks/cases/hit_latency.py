"""Measures a response-cache hit over keep-alive against its floor."""

import asyncio
import statistics
import time

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import CHAT, Connection, Response, UnexpectedResponse, fetch, post_json
from benchmarks.processes import module_server, watched_service
from benchmarks.processor_time import processor_seconds
from benchmarks.request_bodies import agent_messages, small_chat

CONNECTIONS = 16
ROUND_REQUESTS = 100
# The system counts processor time in steps of 10 ms: 1,000 hits take about 300 ms.
PROCESSOR_ROUNDS = 10


class Load(msgspec.Struct, frozen=True):
    name: str
    request: bytes
    floor_request: bytes
    at_most: float


LOADS = tuple(
    Load(name, post_json(path, body), post_json(f"/{name}", body), at_most)
    for name, path, body, at_most in (
        ("small", CHAT, small_chat(), 1.35),
        ("agent", "/v1/messages", agent_messages(stream=False), 1.5),
        ("agent-streamed", "/v1/messages", agent_messages(stream=True), 1.5),
    )
)
SMALL = LOADS[0]


async def run(run: Run) -> dict[str, float]:
    async with watched_service(run.scratch, "--executor", "scripted") as (port, pid):
        lengths = [f"{load.name}={len((await _stored(port, load.request)).body)}" for load in LOADS]
        async with module_server(run.scratch, "benchmarks.floor", *lengths) as floor_port:
            values: dict[str, float] = {}
            for load in LOADS:
                values |= await _latency(load, port, floor_port, rounds=run.pick(20, 3))
                values[f"{load.name}: hit, processor time"] = await _processor_ms(load, port, pid)
            return values | await _rate(port, floor_port, rounds=run.pick(6, 2))


async def _stored(port: int, request: bytes) -> Response:
    """Raises `UnexpectedResponse` if the repeated request is no hit."""
    await fetch(port, request)
    response = await fetch(port, request)
    if b"anyclaude; hit" not in response.head:
        raise UnexpectedResponse(f"Expected 'Cache-Status: anyclaude; hit', found {response.head!r}")
    return response


async def _latency(load: Load, port: int, floor_port: int, *, rounds: int) -> dict[str, float]:
    ours: list[float] = []
    floor: list[float] = []
    async with Connection(port) as to_service, Connection(floor_port) as to_floor:
        await _time_requests(to_service, load.request)
        await _time_requests(to_floor, load.floor_request)
        for _ in range(rounds):
            ours += await _time_requests(to_service, load.request)
            floor += await _time_requests(to_floor, load.floor_request)
    hit_ms, floor_ms = statistics.median(ours) * 1e3, statistics.median(floor) * 1e3
    return {
        f"{load.name}: hit over floor, p50": hit_ms / floor_ms,
        f"{load.name}: hit, p50": hit_ms,
        f"{load.name}: floor, p50": floor_ms,
    }


async def _processor_ms(load: Load, port: int, pid: int) -> float:
    async with Connection(port) as connection:
        await _time_requests(connection, load.request)
        before = processor_seconds(pid)
        for _ in range(PROCESSOR_ROUNDS):
            await _time_requests(connection, load.request)
    return (processor_seconds(pid) - before) * 1e3 / (PROCESSOR_ROUNDS * ROUND_REQUESTS)


async def _time_requests(connection: Connection, request: bytes) -> list[float]:
    seconds = []
    for _ in range(ROUND_REQUESTS):
        started = time.perf_counter()
        await connection.send(request)
        seconds.append(time.perf_counter() - started)
    return seconds


async def _rate(port: int, floor_port: int, *, rounds: int) -> dict[str, float]:
    ours = floor = 0.0
    await _requests_in_second(floor_port, SMALL.floor_request)
    for _ in range(rounds):
        ours += await _requests_in_second(port, SMALL.request)
        floor += await _requests_in_second(floor_port, SMALL.floor_request)
    return {
        f"small: hits/s over the floor's, {CONNECTIONS} connections": ours / floor,
        f"small: hits, {CONNECTIONS} connections": ours / rounds,
        f"small: floor, {CONNECTIONS} connections": floor / rounds,
    }


async def _requests_in_second(port: int, request: bytes) -> float:
    started = time.perf_counter()
    counts = await asyncio.gather(*(_send_until(port, request, started + 1.0) for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - started)


async def _send_until(port: int, request: bytes, end: float) -> int:
    count = 0
    async with Connection(port) as connection:
        while time.perf_counter() < end:
            await connection.send(request)
            count += 1
    return count


CASE = Case(
    title="A response-cache hit against the floor",
    measures=(
        *(Measure(name=f"{load.name}: hit over floor, p50", at_most=load.at_most) for load in LOADS),
        Measure(name=f"small: hits/s over the floor's, {CONNECTIONS} connections", at_least=0.75),
        *(Measure(name=f"{load.name}: {what}, p50", unit="ms") for load in LOADS for what in ("hit", "floor")),
        *(Measure(name=f"{load.name}: hit, processor time", unit="ms") for load in LOADS),
        *(Measure(name=f"small: {what}, {CONNECTIONS} connections", unit="requests/s") for what in ("hits", "floor")),
    ),
    run=run,
    runs=5,
)
