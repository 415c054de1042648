"""The engine's thread dies, hangs and comes back: everybody is answered, and the status says what is."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.errors import EngineFailed, NotReady
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Runtime
from service.executor.supervisor import RESTARTS_AT_MOST
from service.generation import Completion
from service.profile import ModelProfile
from service.settings import Settings
from tests.executor.engines import CountingEngine, WordRenderer, counting_loader, failing_from, question, until

PROFILE = ModelProfile(id="counting", fingerprint="1", context_length=1000)


def dying_at(*steps: int) -> Callable[[int], None]:
    """Ends the thread: no `Exception`, so nobody catches it on the way."""

    def fail(step: int) -> None:
        if step in steps:
            raise SystemExit(f"killed at step {step}")

    return fail


class Loads:
    """Loads `engine` again and again, except where `fail` raises for the number of this load."""

    def __init__(self, engine: CountingEngine, fail: Callable[[int], None] = lambda load: None) -> None:
        self.count = 0
        self._load = counting_loader(engine)
        self._fail = fail

    def __call__(self, path: Path, profile: ModelProfile, settings: Settings) -> Runtime:
        self.count += 1
        self._fail(self.count)
        return self._load(path, profile, settings)


@asynccontextmanager
async def running(load: Callable[..., Runtime], **settings: Any) -> AsyncIterator[MlxExecutor]:
    configured = Settings(home=Path("unused"), shutdown_grace_seconds=5.0, **settings)
    executor = MlxExecutor(Path("counting"), PROFILE, configured, load=load)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.aclose()


async def ask(executor: MlxExecutor, text: str = "hello", **fields: Any) -> Completion:
    return await collect((await executor.submit(question(text, **{"max_tokens": 3, **fields}))).events())


def text_of(completion: Completion) -> str:
    return completion.choices[0].text


async def test_what_has_sent_nothing_runs_again_when_the_thread_has_died() -> None:
    loads = Loads(CountingEngine(dying_at(1)))
    async with running(loads) as executor:
        assert [text_of(c) for c in await asyncio.gather(*[ask(executor) for _ in range(5)])] == ["1 2 3 "] * 5
        assert loads.count == 2
        assert (executor.status().state, executor.status().engine_restarts) == ("healthy", 1)
        assert executor.status().waiting == 0


async def test_what_has_sent_something_fails_and_the_next_request_works() -> None:
    async with running(Loads(CountingEngine(dying_at(3)))) as executor:
        with pytest.raises(EngineFailed, match="killed at step 3"):
            await ask(executor)
        assert text_of(await ask(executor)) == "1 2 3 "


async def test_what_dies_twice_fails() -> None:
    async with running(Loads(CountingEngine(dying_at(1, 2)))) as executor:
        with pytest.raises(EngineFailed, match="killed at step 2"):
            await ask(executor)
        assert text_of(await ask(executor)) == "1 2 3 "


async def test_an_answer_fails_as_a_whole() -> None:
    """One choice has sent something when the thread dies, the other waits: neither is run again."""
    engine = CountingEngine(dying_at(3))
    async with running(Loads(engine), max_concurrency=1) as executor:
        with pytest.raises(EngineFailed):
            await ask(executor, n=2)
        assert text_of(await ask(executor)) == "1 2 3 "
        assert engine.steps == 3 + 4


async def test_whoever_left_before_is_not_run_again() -> None:
    at_the_step, may_die = threading.Event(), threading.Event()

    def die_when_told(step: int) -> None:
        if step == 1:
            at_the_step.set()
            assert may_die.wait(10)
            raise SystemExit

    engine = CountingEngine(die_when_told)
    async with running(Loads(engine)) as executor:
        answer = await executor.submit(question(max_tokens=900))
        await until(at_the_step.is_set)
        await answer.aclose()
        may_die.set()
        await until(lambda: executor.status().engine_restarts == 1)
        assert text_of(await ask(executor)) == "1 2 3 "
        assert engine.steps == 1 + 4


async def test_an_engine_that_cannot_be_rebuilt_is_loaded_anew() -> None:
    class Stubborn(CountingEngine):
        def reset(self) -> None:
            raise RuntimeError("out of memory")

    def fail(step: int) -> None:
        if step == 1:
            raise RuntimeError("injected")

    loads = Loads(Stubborn(fail))
    async with running(loads) as executor:
        assert text_of(await ask(executor)) == "1 2 3 "
        assert loads.count == 2


async def test_a_thread_that_dies_again_and_again_is_given_up() -> None:
    loads = Loads(CountingEngine(die))
    async with running(loads) as executor:
        for _ in range(2):
            with pytest.raises(EngineFailed):
                await ask(executor)
        assert executor.status().state == "unhealthy"
        assert loads.count == RESTARTS_AT_MOST + 1
        with pytest.raises(NotReady, match="has ended 4 times within 600 s"):
            await ask(executor)


async def test_what_comes_out_of_the_template_when_all_is_given_up_is_refused() -> None:
    """Nobody would ever run it."""
    rendering, rendered = threading.Event(), threading.Event()

    def render() -> None:
        rendering.set()
        assert rendered.wait(10)

    lost = Losing()
    configured = Settings(home=Path("unused"))
    load = counting_loader(CountingEngine(), WordRenderer(render))
    executor = MlxExecutor(Path("counting"), PROFILE, configured, load=load, peers=lost)
    await executor.start()
    submitted = asyncio.ensure_future(executor.submit(question()))
    await until(rendering.is_set)
    lost.tell("rank 1 is gone")
    await until(lambda: executor.status().state == "unhealthy")
    rendered.set()
    with pytest.raises(NotReady, match="rank 1 is gone"):
        await submitted
    assert (executor.status().running, executor.status().waiting) == (0, 0)
    await executor.aclose()


class Losing:
    """Peers that are lost when told so."""

    def watch(self, on_loss: Callable[[str], None]) -> None:
        self.tell = on_loss


def die(step: int) -> None:
    raise SystemExit("killed")


async def test_a_model_that_cannot_be_loaded_again_stays_failed_and_says_why() -> None:
    def fail(load: int) -> None:
        if load == 2:
            raise ValueError("the file is gone")

    loads = Loads(CountingEngine(dying_at(1)), fail)
    async with running(loads) as executor:
        with pytest.raises(EngineFailed, match="the file is gone"):
            await ask(executor)
        with pytest.raises(NotReady, match="counting could not be loaded: the file is gone"):
            await ask(executor)
        assert (executor.status().state, loads.count) == ("unhealthy", 2)


async def test_a_failure_at_every_step_ends_in_errors_not_in_silence() -> None:
    async with running(Loads(CountingEngine(failing_from(1)))) as executor:
        for _ in range(4):
            with pytest.raises(EngineFailed):
                await ask(executor)


class Gate:
    """Holds the engine's thread at one step until it is opened."""

    def __init__(self, step: int) -> None:
        self.open = threading.Event()
        self._step = step

    def __call__(self, step: int) -> None:
        if step == self._step:
            assert self.open.wait(60)


async def test_an_engine_that_hangs_is_seen_and_recovers_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(3)
    with caplog.at_level(logging.WARNING):
        async with running(counting_loader(CountingEngine(gate)), stall_seconds=0.2) as executor:
            hanging = asyncio.ensure_future(ask(executor))
            await until(lambda: executor.status().state == "degraded")
            assert "no progress" in executor.status().detail
            await until(lambda: executor.status().state == "unhealthy")
            with pytest.raises(EngineFailed, match="no progress for"):
                await hanging
            with pytest.raises(NotReady, match="no progress for"):
                await ask(executor)
            gate.open.set()
            await until(lambda: executor.status().state == "healthy")
            assert text_of(await ask(executor)) == "1 2 3 "
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "in __call__" in told
    assert "self.open.wait" in told


async def test_an_engine_that_is_merely_slow_for_a_while_loses_nothing() -> None:
    gate = Gate(2)
    async with running(counting_loader(CountingEngine(gate)), stall_seconds=0.5) as executor:
        asked = asyncio.ensure_future(ask(executor))
        await until(lambda: executor.status().state == "degraded")
        gate.open.set()
        assert text_of(await asked) == "1 2 3 "
        assert executor.status().state == "healthy"


async def test_idling_is_no_stall() -> None:
    async with running(counting_loader(CountingEngine()), stall_seconds=0.02) as executor:
        await ask(executor)
        for _ in range(3):
            await asyncio.sleep(0.03)
            assert executor.status().state == "healthy"
            assert text_of(await ask(executor)) == "1 2 3 "
