"""Measures the time to the next right answer after the engine fails, and after its process is killed."""

import asyncio
import itertools
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.case import Case, Measure, Run
from benchmarks.faulty_server import pid_file
from benchmarks.http_client import HOST, Connection, post_chat
from benchmarks.model_folders import demo_model, tiny_model
from benchmarks.ports import free_port
from benchmarks.processes import process, until_ready
from benchmarks.request_bodies import story

Fault = Literal["engine fault", "engine killed"]
SIGNALS: dict[Fault, signal.Signals] = {"engine fault": signal.SIGUSR2, "engine killed": signal.SIGKILL}
MODELS = ("tiny", "demo")
# A process that dies more than three times in ten minutes is not replaced.
FAULTS_OF_A_KIND = 3
QUESTION = post_chat(story(1, tokens=8))
# A request that ran when an engine failed runs alone when it is sent again.
STORIES = itertools.count(2)
PAUSE_SECONDS = 0.005
PATIENCE_SECONDS = 60.0


class Server(msgspec.Struct, frozen=True):
    port: int
    engine: Path

    def kill(self, number: signal.Signals) -> None:
        """Signals the present engine process."""
        os.kill(int(self.engine.read_text()), number)


class Tally(msgspec.Struct):
    """`wrong` counts answers that differ from the first one; `silent` counts streams that never ended."""

    wrong: int = 0
    silent: int = 0


async def run(run: Run) -> dict[str, float]:
    figures: dict[str, float] = {}
    tally = Tally()
    for name, model in zip(MODELS, (await tiny_model(run), await asyncio.to_thread(demo_model)), strict=True):
        figures |= {f"{name}: {what}": seconds for what, seconds in (await measure(run, model, tally)).items()}
    return {**figures, "answers that are wrong": float(tally.wrong), "streams without an end": float(tally.silent)}


async def measure(run: Run, model: Path, tally: Tally) -> dict[str, float]:
    """Returns seconds by fault."""
    async with _served(run, model) as server:
        right = await _answer(server)
        started = time.perf_counter()
        tally.wrong += await _answer(server) != right
        figures = {"without a fault": time.perf_counter() - started}
        for fault in SIGNALS:
            seconds = [await _recover(server, fault, right, tally) for _ in range(run.pick(FAULTS_OF_A_KIND, 1))]
            figures[fault] = statistics.median(seconds)
    return figures


@asynccontextmanager
async def _served(run: Run, model: Path) -> AsyncIterator[Server]:
    port = free_port()
    log = run.scratch / f"faulty-{port}.log"
    async with process([sys.executable, "-m", "benchmarks.faulty_server", str(port), str(model)], log) as started:
        await until_ready(started, log, port, "/health", lambda response: response.json()["status"] == "healthy")
        yield Server(port, run.scratch / pid_file(port))


async def _recover(server: Server, fault: Fault, right: str, tally: Tally) -> float:
    """Returns the seconds from a fault to the next right answer. A refused or failed request is sent again."""
    async with _running(server, tally, next(STORIES)), _running(server, tally, next(STORIES)):
        started = time.perf_counter()
        server.kill(SIGNALS[fault])
        answer = await _answer(server)
        seconds = time.perf_counter() - started
    tally.wrong += answer != right
    return seconds


async def _answer(server: Server) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with Connection(server.port) as connection:
                response = await connection.exchange(QUESTION)
            if response.status == 200:
                text: str = response.json()["choices"][0]["message"]["content"]
                return text
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def _running(server: Server, tally: Tally, number: int) -> AsyncIterator[None]:
    """A stream that runs when the fault comes. It must end, with its answer or with an error."""
    reader, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(post_chat(story(number, tokens=2_000, stream=True)))
    async for line in reader:  # Up to the first text: before it, a request would run again.
        if b'"content":"' in line and b'"content":""' not in line:
            break
    reading = asyncio.create_task(_read_to_end(reader))
    yield
    try:
        await asyncio.wait_for(reading, PATIENCE_SECONDS)
    except (TimeoutError, asyncio.IncompleteReadError):
        tally.silent += 1
    writer.close()


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    """Raises IncompleteReadError if the connection ends before the last chunk."""
    while (line := await reader.readline()).strip() != b"0":
        if not line:
            raise asyncio.IncompleteReadError(line, None)


CASE = Case(
    title="A fault in the engine, and the death of its process, while two answers are streamed",
    measures=(
        *(
            Measure(name=f"{model}: {what}", unit="s")
            for model in MODELS
            for what in ("engine fault", "engine killed", "without a fault")
        ),
        Measure(name="answers that are wrong", unit="answers", at_most=0),
        Measure(name="streams without an end", unit="streams", at_most=0),
    ),
    run=run,
    timeout_seconds=400.0,
)
