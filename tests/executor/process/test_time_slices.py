"""Engine processes on one device compute in turn."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from service.executor.base import Answer, collect
from service.executor.process.engine_process import EngineProcess
from service.executor.scheduling.time_slices import SLICE_SECONDS, TimeSlices, open_time_slices
from service.settings import Settings
from tests.executor.engines import question, until
from tests.executor.process.engines import spec
from tests.executor.process.test_engine_process import ask, text_of

READ_SECONDS, STEP_SECONDS = 0.1, 0.005
READING_CHUNKS, DECODED_TOKENS = 20, 100
LONG_PROMPT = "word " * 2 * READING_CHUNKS

Step = tuple[float, float]


@asynccontextmanager
async def engines(home: Path, count: int) -> AsyncIterator[list[EngineProcess]]:
    settings = Settings(home=home, shutdown_grace_seconds=1.0)
    pace = {"read_seconds": READ_SECONDS, "step_seconds": STEP_SECONDS}
    async with AsyncExitStack() as stack:
        made = [EngineProcess(spec("paced", settings, steps=str(home / str(i)), **pace)) for i in range(count)]
        for engine in made:
            await engine.start()
            stack.push_async_callback(engine.aclose)
        for engine in made:
            await engine.settled.wait()
        yield made


def steps(home: Path, number: int) -> list[Step]:
    return [
        (float(began), float(ended)) for began, ended in map(str.split, (home / str(number)).read_text().splitlines())
    ]


def seconds_within(steps: list[Step], begin: float, end: float) -> float:
    return sum(max(0.0, min(ended, end) - max(began, begin)) for began, ended in steps)


async def finish(answer: Answer) -> str:
    return text_of(await collect(answer.events()))


async def test_a_long_prompt_and_an_answer_get_the_same_time(tmp_path: Path) -> None:
    async with engines(tmp_path, 2) as (reading, decoding):
        read, decoded = await asyncio.gather(
            ask(reading, LONG_PROMPT, max_tokens=1), ask(decoding, max_tokens=DECODED_TOKENS)
        )
    assert (read, decoded.split()[-1]) == ("1 ", str(DECODED_TOKENS))
    both = [steps(tmp_path, 0), steps(tmp_path, 1)]
    begin, end = max(each[0][0] for each in both), min(each[-1][1] for each in both)
    shares = [seconds_within(each, begin, end) / (end - begin) for each in both]
    longest = max(ended - began for began, ended in itertools.chain(*both))
    # Each may be a step ahead, at the begin and at the end. On a busy machine both wait between their steps. An
    # engine's time includes that, its steps do not.
    slack = 2 * (longest + SLICE_SECONDS) / (end - begin) + 1 - sum(shares)
    assert abs(shares[0] - shares[1]) < slack, shares
    in_order = sorted(itertools.chain(*both))
    overlaps = [(one, other) for one, other in itertools.pairwise(in_order) if other[0] < one[1]]
    assert overlaps == []


async def test_a_step_that_began_a_moment_later_counts(tmp_path: Path) -> None:
    async with engines(tmp_path, 1) as (engine,):
        answer = await engine.submit(question(max_tokens=900))
        await until(lambda: engine.status().generated_tokens > 0)
        slices = TimeSlices(tmp_path / "time-slices", clock=lambda: time.monotonic() - 1)
        await asyncio.to_thread(slices.begin)
        assert slices.contended
        slices.end()
        await answer.aclose()


async def test_an_engine_that_is_killed_in_its_turn_leaves_the_device(tmp_path: Path) -> None:
    async with engines(tmp_path, 2) as (dying, living):
        doomed = await dying.submit(question(max_tokens=900))
        answer = asyncio.ensure_future(ask(living, max_tokens=DECODED_TOKENS))
        await until(lambda: living.status().generated_tokens > 0)
        assert dying.pid is not None
        os.kill(dying.pid, signal.SIGKILL)
        assert (await answer).split()[-1] == str(DECODED_TOKENS)
        await doomed.aclose()


async def test_an_engine_that_hangs_in_its_turn_is_not_waited_for(tmp_path: Path) -> None:
    async with engines(tmp_path, 2) as (hanging, living):
        stuck = await hanging.submit(question(max_tokens=900))
        await until(lambda: hanging.status().generated_tokens > 0)
        assert hanging.pid is not None
        os.kill(hanging.pid, signal.SIGSTOP)
        assert (await ask(living, max_tokens=DECODED_TOKENS)).split()[-1] == str(DECODED_TOKENS)
        await stuck.aclose()


def test_without_their_file_engines_take_no_turns(tmp_path: Path) -> None:
    (tmp_path / "time-slices").mkdir()
    assert open_time_slices(tmp_path) is None
