"""An exception at every call of the engine in turn, and readers who leave at any point: nothing wrong is answered,
nobody is forgotten, and the next request works."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.errors import EngineFailed, NotReady, ServiceError
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Loader, Runtime, load_runtime
from service.executor.scheduling.protocols import Engine
from service.profile import ModelProfile
from service.settings import Settings
from tests.executor.engines import CountingEngine, counting_loader, question, until
from tests.no_home import NO_HOME
from tests.patience import PATIENCE_SECONDS

PROFILE = ModelProfile(id="faulty", fingerprint="1", context_length=4000)

MEASURED_AT_LOAD = ("longest", "memory_bytes", "prefix_cache_bytes")


class Faults:
    """Raises `error` at call number `at` of the engine, whichever it is; `calls` counts over all its lives."""

    def __init__(self, at: int, error: Callable[[str], BaseException]) -> None:
        self.at = at
        self.calls = 0
        self._error = error

    @property
    def ends_the_thread(self) -> bool:
        return self._error is SystemExit

    @property
    def came(self) -> bool:
        return self.calls >= self.at

    def call(self, name: str) -> None:
        if not self.calls and name in MEASURED_AT_LOAD:
            return
        self.calls += 1
        if self.calls == self.at:
            raise self._error(f"injected at call {self.calls}, {name}")


class FaultyEngine:
    """An engine whose every call may fail, before it does anything."""

    def __init__(self, engine: Engine, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._engine, name)
        if not callable(member):
            return member

        def call(*arguments: Any) -> Any:
            self._faults.call(name)
            return member(*arguments)

        return call


def faulty(load: Loader, faults: Faults) -> Loader:
    def load_faulty(path: Path, profile: ModelProfile, settings: Settings) -> Runtime:
        runtime = load(path, profile, settings)
        return msgspec.structs.replace(runtime, engine=FaultyEngine(runtime.engine, faults))

    return load_faulty


def executor_of(path: Path, load: Loader) -> MlxExecutor:
    settings = Settings(home=NO_HOME, prefix_memory_bytes=0, prefix_disk_bytes=0, prefill_chunk_tokens=16)
    return MlxExecutor(path, PROFILE, settings, load=load)


async def ask(executor: MlxExecutor, text: str, max_tokens: int, stop: tuple[str, ...] = ()) -> str | ServiceError:
    try:
        answer = await executor.submit(question(text, max_tokens=max_tokens, stop=stop))
        return (await collect(answer.events())).choices[0].text
    except ServiceError as error:
        return error


async def ask_and_leave(executor: MlxExecutor) -> None:
    try:
        answer = await executor.submit(question("long " * 20, max_tokens=500))
        async for _ in answer.events():
            break
        await answer.aclose()
    except (EngineFailed, NotReady):
        return


async def ask_everything(executor: MlxExecutor) -> list[str | ServiceError]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        *answers, _ = await asyncio.gather(
            ask(executor, "one", 3),
            ask(executor, "one two three four five", 4),
            ask(executor, "one two", 9, stop=("3",)),
            ask_and_leave(executor),
        )
    return answers


@pytest.mark.parametrize("error", [RuntimeError, SystemExit], ids=["an exception", "the end of the thread"])
async def test_a_fault_at_any_call_gives_no_wrong_answer(error: Callable[[str], BaseException]) -> None:
    at = 0
    faults = Faults(at, error)
    while faults.calls >= at:
        at += 1
        faults = Faults(at, error)
        await survive(executor_of(Path("counting"), faulty(counting_loader(CountingEngine()), faults)), faults)
    assert at > 30


async def survive(executor: MlxExecutor, faults: Faults) -> None:
    expected = ["1 2 3 ", "1 2 3 4 ", "1 2 "]
    await executor.start()
    for answer, right in zip(await ask_everything(executor), expected, strict=True):
        assert answer == right or isinstance(answer, EngineFailed | NotReady), f"fault at call {faults.at}: {answer!r}"
    came = faults.came
    again = await ask(executor, "again", 2)
    if faults.came and not came:  # how many calls the answers before take is a matter of time
        assert again == "1 2 " or isinstance(again, EngineFailed | NotReady)
        again = await ask(executor, "and again", 2)
    await until(lambda: executor.status().running == executor.status().waiting == 0)
    if faults.ends_the_thread and faults.came:
        await until(lambda: executor.status().state == "unhealthy")
        assert isinstance(again, EngineFailed | NotReady) or not came
    else:
        assert again == "1 2 "
        assert executor.status().state == "healthy"
    await executor.aclose()


@pytest.mark.model
async def test_a_model_that_fails_at_a_step_answers_as_one_that_does_not(tiny_model: Path) -> None:
    healthy = executor_of(tiny_model, load_runtime)
    await healthy.start()
    expected = await ask_everything(healthy)
    await healthy.aclose()
    assert all(isinstance(answer, str) for answer in expected)
    for at in (5, 9, 14, 22):
        faults = Faults(at, RuntimeError)
        executor = executor_of(tiny_model, faulty(load_runtime, faults))
        await executor.start()
        for answer, right in zip(await ask_everything(executor), expected, strict=True):
            assert answer == right or isinstance(answer, EngineFailed), f"fault at call {at}: {answer!r}"
        assert faults.calls > at
        assert await ask(executor, "one", 3) == expected[0]
        await executor.aclose()


@pytest.mark.model
async def test_leaving_at_random_points_gives_everything_back(tiny_model: Path) -> None:
    """In the queue, in the prompt, in the answer: every place is free after, and so is the memory."""
    moments = random.Random(5)
    executor = executor_of(tiny_model, load_runtime)
    await executor.start()
    expected = await ask(executor, "one two three", 8)
    baseline = 0
    for i in range(40):
        answers = [await executor.submit(question(f"{i} " * 300, max_tokens=200)) for _ in range(3)]
        await asyncio.sleep(moments.uniform(0, 0.03))
        for answer in answers:
            await answer.aclose()
        if i == 10:
            baseline = await memory_at_rest(executor)
    grown = await memory_at_rest(executor) - baseline
    assert grown < 1_000_000
    assert await ask(executor, "one two three", 8) == expected
    await executor.aclose()


async def memory_at_rest(executor: MlxExecutor) -> int:
    await until(lambda: executor.status().running == executor.status().waiting == 0)
    await ask(executor, "the last step tells what is held", 1)
    memory = executor.status().memory_bytes
    assert memory is not None
    return memory
