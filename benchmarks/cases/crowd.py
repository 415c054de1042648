"""Measures how 1,000 simultaneous requests meet a queue of 64.

A refused client mostly waits for the requests before its own, so its time is compared with a server that returns
stored bytes to all. The service's metrics give its own time for a refusal.
"""

import asyncio
import re
import resource
import statistics
import time
from contextlib import AsyncExitStack, suppress

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import CHAT, Connection, Response, fetch, get, post_chat, post_json
from benchmarks.model_folders import tiny_model
from benchmarks.processes import module_server, service
from benchmarks.request_bodies import story

REQUESTS = 1_000
MAX_QUEUE = 64
TOKENS = 16
ANSWER_SECONDS = 120.0
FLOOR_BYTES = 300
DURATIONS = "gen_ai_server_request_duration_seconds"


class Outcome(msgspec.Struct, frozen=True):
    """`response` is None if no answer came."""

    seconds: float
    response: Response | None

    @property
    def status(self) -> int:
        return self.response.status if self.response is not None else 0


async def run(run: Run) -> dict[str, float]:
    requests = run.pick(REQUESTS, 200)
    _allow_open_files(2 * requests + 100)
    model = str(await tiny_model(run))
    async with (
        module_server(run.scratch, "benchmarks.floor", f"floor={FLOOR_BYTES}") as floor_port,
        service(run.scratch, model, maxQueue=MAX_QUEUE, cachePolicy="off") as port,
    ):
        await fetch(port, post_chat(story(0, tokens=4)))
        floor = await _crowd(floor_port, "/floor", requests)
        outcomes = await _crowd(port, CHAT, requests)
        floor += await _crowd(floor_port, "/floor", requests)
        await fetch(port, post_chat(story(requests, tokens=4)))
        inside = _p99_of_refusals((await fetch(port, get("/metrics"))).body.decode())
    refused = [outcome.seconds for outcome in outcomes if outcome.status == 503]
    return {
        "refused, p99 within the service": inside * 1e3,
        "refused, p99 over the floor's": _p99(refused) / _p99([outcome.seconds for outcome in floor]),
        "requests without an answer": float(sum(outcome.status not in (200, 503) for outcome in outcomes)),
        "answers that are wrong": float(sum(not _is_right(outcome.response) for outcome in outcomes)),
        "refused, p99": _p99(refused) * 1e3,
        "refused, p50": statistics.median(refused) * 1e3,
        "floor, p99": _p99([outcome.seconds for outcome in floor]) * 1e3,
        "requests served": float(sum(outcome.status == 200 for outcome in outcomes)),
        "requests refused": float(len(refused)),
    }


async def _crowd(port: int, path: str, requests: int) -> list[Outcome]:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(port)) for _ in range(requests)]
        bodies = [post_json(path, story(number, TOKENS)) for number in range(requests)]
        return await asyncio.gather(*map(_ask, connections, bodies))


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def _p99_of_refusals(exposition: str) -> float:
    """Returns seconds: the upper bound of the bucket that contains the percentile."""
    counts = {
        float(bound): float(count)
        for labels, count in re.findall(rf"^{DURATIONS}_bucket{{(.*)}} (\S+)$", exposition, re.MULTILINE)
        if 'error_type="overloaded"' in labels
        for bound in re.findall(r'le="(.*?)"', labels)
    }
    return min(bound for bound, count in counts.items() if count >= 0.99 * max(counts.values()))


async def _ask(connection: Connection, request: bytes) -> Outcome:
    started = time.perf_counter()
    response = None
    with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
        async with asyncio.timeout(ANSWER_SECONDS):
            response = await connection.exchange(request)
    return Outcome(time.perf_counter() - started, response)


def _is_right(response: Response | None) -> bool:
    """True for a complete answer, and for a refusal with a time to retry."""
    if response is None or response.status != 200:
        return response is not None and b"\r\nretry-after:" in response.head.lower()
    answer = response.json()
    return bool(answer["usage"]["completion_tokens"] == TOKENS or answer["choices"][0]["finish_reason"] == "stop")


def _allow_open_files(count: int) -> None:
    """The server that this process starts inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most < count else max(count, 1024), most))


CASE = Case(
    title="1,000 requests at once, tiny model",
    measures=(
        Measure(name="refused, p99 within the service", unit="ms", at_most=100),
        Measure(name="refused, p99 over the floor's", at_most=2),
        Measure(name="requests without an answer", unit="requests", at_most=0),
        Measure(name="answers that are wrong", unit="answers", at_most=0),
        Measure(name="refused, p99", unit="ms"),
        Measure(name="refused, p50", unit="ms"),
        Measure(name="floor, p99", unit="ms"),
        Measure(name="requests served", unit="requests"),
        Measure(name="requests refused", unit="requests"),
    ),
    run=run,
)
