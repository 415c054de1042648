"""Measures hits of one server and of two that share a Redis, and the processor time of each hit."""

import asyncio
import re
import time
from contextlib import AsyncExitStack

import msgspec
import redis.asyncio

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import HOST, Connection, fetch, get, post_chat
from benchmarks.processes import service
from benchmarks.request_bodies import small_chat
from benchmarks.stores import redis_server

CONNECTIONS = 16
# Enough keys that a memory tier, if there were one, would see each of them.
ANSWERS = 200
_CPU_SECONDS = re.compile(rb"^process_cpu_seconds_total (\S+)$", re.MULTILINE)


class Cost(msgspec.Struct, frozen=True):
    """Times are in seconds."""

    hits: int
    seconds: float
    server_cpu: float
    redis_cpu: float


async def run(run: Run) -> dict[str, float]:
    seconds = run.pick(4, 1)
    async with AsyncExitStack() as stack:
        redis_port = await stack.enter_async_context(redis_server(run.scratch))
        # A long timeout: on a busy machine the default one would open the circuit breaker.
        url = f"redis://{HOST}:{redis_port}/0?timeout=5"
        ports = [
            await stack.enter_async_context(service(run.scratch, "--executor", "scripted", "--cache", url))
            for _ in range(2)
        ]
        requests = [post_chat(small_chat(f"Question {i}?")) for i in range(ANSWERS)]
        for request in requests:
            await fetch(ports[0], request)
        one = await _load(ports[:1], redis_port, requests, seconds)
        two = await _load(ports, redis_port, requests, seconds)
    return {
        "one server": one.hits / one.seconds,
        "two servers": two.hits / two.seconds,
        "two servers over one": (two.hits / two.seconds) / (one.hits / one.seconds),
        "processor time of a server for a hit": 1e6 * two.server_cpu / two.hits,
        "processor time of Redis for a hit": 1e6 * two.redis_cpu / two.hits,
        "hits that a core of servers could give": two.hits / two.server_cpu,
        "hits that a core of Redis could serve": two.hits / two.redis_cpu,
    }


async def _load(ports: list[int], redis_port: int, requests: list[bytes], seconds: int) -> Cost:
    async with redis.asyncio.Redis(host=HOST, port=redis_port) as client:
        servers, store = await _server_cpu(ports), await _redis_cpu(client)
        started = time.perf_counter()
        counts = await asyncio.gather(
            *(_ask(ports[i % len(ports)], requests[i:] + requests[:i], started + seconds) for i in range(CONNECTIONS))
        )
        elapsed = time.perf_counter() - started
        return Cost(sum(counts), elapsed, await _server_cpu(ports) - servers, await _redis_cpu(client) - store)


async def _ask(port: int, requests: list[bytes], end: float) -> int:
    """Returns the number of hits. Raises for any other outcome."""
    count = 0
    async with Connection(port) as connection:
        while time.perf_counter() < end:
            response = await connection.send(requests[count % len(requests)])
            assert b"anyclaude; hit" in response.head, response.head
            count += 1
    return count


async def _server_cpu(ports: list[int]) -> float:
    total = 0.0
    for port in ports:
        found = _CPU_SECONDS.search((await fetch(port, get("/metrics"))).body)
        assert found is not None, "the server does not tell its processor time"
        total += float(found[1])
    return total


async def _redis_cpu(client: redis.asyncio.Redis) -> float:
    told = await client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


CASE = Case(
    title="Hits of one and of two servers over a shared Redis",
    measures=(
        Measure(name="one server", unit="hits/s"),
        Measure(name="two servers", unit="hits/s"),
        Measure(name="two servers over one"),
        Measure(name="processor time of a server for a hit", unit="µs"),
        Measure(name="processor time of Redis for a hit", unit="µs"),
        Measure(name="hits that a core of servers could give", unit="hits/s"),
        Measure(name="hits that a core of Redis could serve", unit="hits/s"),
    ),
    run=run,
)
