"""1,000 requests at once against a queue of 64: who is served is served right, who is refused is refused at once."""

import asyncio
import resource
import statistics
import time
from contextlib import AsyncExitStack

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import Connection, fetch, post_json
from benchmarks.model_folders import tiny_model
from benchmarks.processes import service
from benchmarks.request_bodies import story

REQUESTS = 1_000
MAX_QUEUE = 64
TOKENS = 16
CHAT = "/v1/chat/completions"
ANSWER_SECONDS = 120.0


class Outcome(msgspec.Struct, frozen=True):
    """`status` 0: no answer came."""

    status: int
    seconds: float
    right: bool


async def run(run: Run) -> dict[str, float]:
    requests = run.pick(REQUESTS, 200)
    _allow_open_files(2 * requests + 100)
    async with service(run.scratch, str(await tiny_model(run)), maxQueue=MAX_QUEUE, cachePolicy="off") as port:
        await fetch(port, post_json(CHAT, story(0, tokens=4)))
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(Connection(port)) for _ in range(requests)]
            bodies = [post_json(CHAT, story(number, TOKENS)) for number in range(requests)]
            outcomes = await asyncio.gather(*map(_ask, connections, bodies))
        await fetch(port, post_json(CHAT, story(requests, tokens=4)))
    refused = [outcome.seconds * 1e3 for outcome in outcomes if outcome.status == 503]
    return {
        "refused, p99": statistics.quantiles(refused, n=100)[98],
        "requests without an answer": float(sum(outcome.status not in (200, 503) for outcome in outcomes)),
        "answers that are wrong": float(sum(not outcome.right for outcome in outcomes)),
        "refused, p50": statistics.median(refused),
        "requests served": float(sum(outcome.status == 200 for outcome in outcomes)),
        "requests refused": float(len(refused)),
    }


async def _ask(connection: Connection, request: bytes) -> Outcome:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            response = await connection.exchange(request)
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return Outcome(0, 0.0, right=False)
    seconds = time.perf_counter() - started
    if response.status == 200:
        answer = response.json()
        whole = answer["usage"]["completion_tokens"] == TOKENS or answer["choices"][0]["finish_reason"] == "stop"
        return Outcome(200, seconds, right=whole)
    return Outcome(response.status, seconds, right=b"\r\nretry-after:" in response.head.lower())


def _allow_open_files(count: int) -> None:
    """For this process and the server that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most < count else max(count, 1024), most))


CASE = Case(
    title="1,000 requests at once, tiny model",
    measures=(
        Measure(name="refused, p99", unit="ms", at_most=100),
        Measure(name="requests without an answer", unit="requests", at_most=0),
        Measure(name="answers that are wrong", unit="answers", at_most=0),
        Measure(name="refused, p50", unit="ms"),
        Measure(name="requests served", unit="requests"),
        Measure(name="requests refused", unit="requests"),
    ),
    run=run,
)
