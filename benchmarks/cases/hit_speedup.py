"""Measures a response-cache hit against the generation of its 64 tokens."""

import statistics
import time

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import Connection, UnexpectedResponse, post_chat
from benchmarks.model_folders import demo_model
from benchmarks.processes import service
from benchmarks.request_bodies import story

NEW_TOKENS = 64
HITS = 200


async def run(run: Run) -> dict[str, float]:
    misses: list[float] = []
    hits: list[float] = []
    async with service(run.scratch, str(demo_model())) as port, Connection(port) as connection:
        await connection.send(post_chat(story(0, tokens=4)))
        for number in range(1, run.pick(4, 2)):
            request = post_chat(story(number, NEW_TOKENS))
            misses.append(await _time(connection, request, b"fwd=uri-miss"))
            hits += [await _time(connection, request, b"anyclaude; hit") for _ in range(HITS)]
    miss, hit = statistics.median(misses), statistics.median(hits)
    return {"miss over hit": miss / hit, "miss of 64 tokens": miss * 1e3, "hit, p50": hit * 1e3}


async def _time(connection: Connection, request: bytes, cache_status: bytes) -> float:
    started = time.perf_counter()
    response = await connection.send(request)
    seconds = time.perf_counter() - started
    tokens = response.json()["usage"]["completion_tokens"]
    if cache_status not in response.head or tokens != NEW_TOKENS:
        raise UnexpectedResponse(f"Expected {cache_status!r} of {NEW_TOKENS} tokens, found {tokens}: {response.head!r}")
    return seconds


CASE = Case(
    title="A hit against a miss of 64 tokens, demo model",
    measures=(
        Measure(name="miss over hit", at_least=5_000),
        Measure(name="miss of 64 tokens", unit="ms"),
        Measure(name="hit, p50", unit="ms"),
    ),
    run=run,
)
