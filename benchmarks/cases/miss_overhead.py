"""Measures a miss that is not streamed against mlx-lm's own generation in process."""

import statistics
import time

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import Connection, UnexpectedResponse, post_json
from benchmarks.model_folders import dense_demo
from benchmarks.processes import Worker, module_worker, service
from benchmarks.request_bodies import story

NEW_TOKENS = 64
PAIRS = 15
"""With half as many, the median varied by 4 % between runs, as much as the effect."""

NO_PREFIX_CACHE = {"prefixCache": {"memory": "0", "disk": "0"}}


async def run(run: Run) -> dict[str, float]:
    model = str(await dense_demo(run))
    ours: list[float] = []
    theirs: list[float] = []
    async with (
        service(run.scratch, model, **NO_PREFIX_CACHE) as port,
        module_worker(run.scratch, "benchmarks.peers.mlx_lm_generate", model) as peer,
        Connection(port) as connection,
    ):
        await _compare(connection, peer, 0)
        for number in range(1, 1 + run.pick(PAIRS, 1)):
            our_seconds, their_seconds = await _compare(connection, peer, number)
            ours.append(our_seconds)
            theirs.append(their_seconds)
    return {
        "miss over mlx-lm in process": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "miss of 64 tokens": statistics.median(ours) * 1e3,
        "mlx-lm in process": statistics.median(theirs) * 1e3,
    }


async def _compare(connection: Connection, peer: Worker, number: int) -> tuple[float, float]:
    """Raises `UnexpectedResponse` if the two texts differ."""
    request = story(number, NEW_TOKENS)
    if number % 2:
        their = await peer.ask(request)
    started = time.perf_counter()
    response = await connection.send(post_json("/v1/chat/completions", request))
    seconds = time.perf_counter() - started
    if not number % 2:
        their = await peer.ask(request)
    text = response.json()["choices"][0]["message"]["content"]
    if text != their["text"] or their["tokens"] != NEW_TOKENS or b"fwd=uri-miss" not in response.head:
        raise UnexpectedResponse(f"Expected a miss with mlx-lm's text, {their['text']!r}, found {text!r}")
    return seconds, their["seconds"]


CASE = Case(
    title="A miss against mlx-lm in process, demo model",
    measures=(
        Measure(name="miss over mlx-lm in process", at_most=1.03),
        Measure(name="miss of 64 tokens", unit="ms"),
        Measure(name="mlx-lm in process", unit="ms"),
    ),
    run=run,
)
