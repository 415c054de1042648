"""Measures a miss that is not streamed against mlx-lm's own generation in process."""

import statistics
import time

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import Connection, UnexpectedResponse, post_chat
from benchmarks.model_folders import dense_demo
from benchmarks.processes import NO_PREFIX_CACHE, Worker, module_worker, watched_service
from benchmarks.processor_time import processor_seconds
from benchmarks.request_bodies import story

NEW_TOKENS = 64
# With half as many, the median varied by 4 % between runs, as much as the effect.
PAIRS = 15


class Times(msgspec.Struct, frozen=True):
    seconds: float
    processor: float  # seconds, too


async def run(run: Run) -> dict[str, float]:
    model = str(await dense_demo(run))
    async with (
        watched_service(run.scratch, model, **NO_PREFIX_CACHE) as (port, pid),
        module_worker(run.scratch, "benchmarks.peers.mlx_lm_generate", model) as peer,
        Connection(port) as connection,
    ):
        await _compare(connection, pid, peer, 0)
        pairs = [await _compare(connection, pid, peer, number) for number in range(1, 1 + run.pick(PAIRS, 1))]
    return {
        "miss over mlx-lm in process": statistics.median(our.seconds / their.seconds for our, their in pairs),
        "processor time over mlx-lm's": statistics.median(our.processor / their.processor for our, their in pairs),
        "miss of 64 tokens": statistics.median(our.seconds for our, _ in pairs) * 1e3,
        "mlx-lm in process": statistics.median(their.seconds for _, their in pairs) * 1e3,
        "miss of 64 tokens, processor time": statistics.median(our.processor for our, _ in pairs) * 1e3,
    }


async def _compare(connection: Connection, pid: int, peer: Worker, number: int) -> tuple[Times, Times]:
    """Raises `UnexpectedResponse` if the two texts differ."""
    request = story(number, NEW_TOKENS)
    if number % 2:
        their = await peer.ask(request)
    started, used = time.perf_counter(), processor_seconds(pid)
    response = await connection.send(post_chat(request))
    ours = Times(time.perf_counter() - started, processor_seconds(pid) - used)
    if not number % 2:
        their = await peer.ask(request)
    text = response.json()["choices"][0]["message"]["content"]
    if text != their["text"] or their["tokens"] != NEW_TOKENS or b"fwd=uri-miss" not in response.head:
        raise UnexpectedResponse(f"Expected a miss with mlx-lm's text, {their['text']!r}, found {text!r}")
    return ours, Times(their["seconds"], their["processor_seconds"])


CASE = Case(
    title="A miss against mlx-lm in process, demo model",
    measures=(
        Measure(name="miss over mlx-lm in process", at_most=1.03),
        Measure(name="processor time over mlx-lm's"),
        Measure(name="miss of 64 tokens", unit="ms"),
        Measure(name="mlx-lm in process", unit="ms"),
        Measure(name="miss of 64 tokens, processor time", unit="ms"),
    ),
    run=run,
)
