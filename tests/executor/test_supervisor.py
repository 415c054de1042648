"""The MLX thread dies or hangs: everything in flight ends, and the status shows that the process is done for."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.errors import EngineFailed, NotReady, ServiceError
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Runtime
from service.generation import Completion
from service.models.errors import NoRoom
from service.profile import ModelProfile
from service.queries import ListPrefixes, PrefixBranch, PrefixesFound
from service.settings import Settings
from tests.executor.engines import CountingEngine, WordRenderer, counting_loader, failing_from, question, until
from tests.no_home import NO_HOME
from tests.patience import PATIENCE_SECONDS

PROFILE = ModelProfile(id="counting", fingerprint="1", context_length=1000)


def dying_at(*steps: int) -> Callable[[int], None]:
    """Ends the thread with an exception that nobody catches on the way."""

    def fail(step: int) -> None:
        if step in steps:
            raise SystemExit(f"killed at step {step}")

    return fail


@asynccontextmanager
async def running(load: Callable[..., Runtime], **settings: Any) -> AsyncIterator[MlxExecutor]:
    configured = Settings(home=NO_HOME, shutdown_grace_seconds=5.0, **settings)
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


async def test_everything_in_flight_ends_when_the_thread_has_died() -> None:
    async with running(counting_loader(CountingEngine(dying_at(1)))) as executor:
        outcomes = await asyncio.gather(*[ask(executor) for _ in range(5)], return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {EngineFailed, NotReady}
        assert (executor.status().state, executor.status().permanent) == ("unhealthy", False)
        assert "killed at step 1" in executor.status().detail
        assert (executor.status().running, executor.status().waiting) == (0, 0)
        with pytest.raises(NotReady, match="killed at step 1"):
            await ask(executor)


async def test_a_model_that_cannot_be_loaded_fails_for_good() -> None:
    def load(*_: Any) -> Runtime:
        raise SystemExit(1)  # as `mlx_lm.models.olmo` does when it is imported

    async with running(load) as executor:
        with pytest.raises(NotReady, match="counting could not be loaded: SystemExit: 1"):
            await ask(executor)
        assert (executor.status().state, executor.status().permanent) == ("unhealthy", True)


async def test_a_model_without_enough_memory_may_be_loaded_later() -> None:
    def load(*_: Any) -> Runtime:
        raise NoRoom("other programs have the memory")

    async with running(load) as executor:
        with pytest.raises(NotReady, match="other programs have the memory"):
            await ask(executor)
        status = executor.status()
        assert (status.state, status.permanent, status.no_room) == ("unhealthy", False, True)


async def test_an_engine_that_cannot_be_rebuilt_ends_the_thread() -> None:
    class Stubborn(CountingEngine):
        def reset(self) -> None:
            raise RuntimeError("out of memory")

    async with running(counting_loader(Stubborn(failing_from(1)))) as executor:
        with pytest.raises(EngineFailed, match="could not be rebuilt: RuntimeError"):
            await ask(executor)
        assert executor.status().state == "unhealthy"


async def test_a_failure_at_every_step_ends_in_errors_not_in_silence() -> None:
    async with running(counting_loader(CountingEngine(failing_from(1)))) as executor:
        for _ in range(4):
            with pytest.raises(ServiceError):
                await ask(executor)


async def test_who_asks_for_the_prefixes_hears_that_the_engine_is_stuck_or_gone() -> None:
    stuck = threading.Event()

    class Stuck(CountingEngine):
        def prefixes(self) -> list[PrefixBranch]:
            stuck.wait(PATIENCE_SECONDS)
            return super().prefixes()

    async with running(counting_loader(Stuck()), stall_seconds=1.0) as executor:
        with pytest.raises(NotReady, match="engine is busy"):
            await executor.ask(ListPrefixes())
        stuck.set()
        assert await executor.ask(ListPrefixes()) == PrefixesFound([])
    async with running(counting_loader(CountingEngine(dying_at(1)))) as executor:
        with pytest.raises((EngineFailed, NotReady)):
            await ask(executor)
        with pytest.raises(NotReady, match="killed at step 1"):
            await executor.ask(ListPrefixes())


class Losing:
    """Peers that are lost when told so."""

    def watch(self, on_loss: Callable[[str], None]) -> None:
        self.tell = on_loss


async def test_what_comes_out_of_the_template_when_all_is_given_up_is_refused() -> None:
    """Nobody would ever run it."""
    rendering, rendered = threading.Event(), threading.Event()

    def render() -> None:
        rendering.set()
        assert rendered.wait(PATIENCE_SECONDS)

    lost = Losing()
    configured = Settings(home=NO_HOME)
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


class Gate:
    """Holds the MLX thread at one step until it is opened."""

    def __init__(self, step: int) -> None:
        self.open = threading.Event()
        self._step = step

    def __call__(self, step: int) -> None:
        if step == self._step:
            assert self.open.wait(PATIENCE_SECONDS)


@pytest.mark.waits
async def test_an_engine_that_hangs_is_seen_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(3)
    with caplog.at_level(logging.WARNING):
        async with running(counting_loader(CountingEngine(gate)), stall_seconds=1.0) as executor:
            hanging = asyncio.ensure_future(ask(executor))
            await until(lambda: executor.status().state == "degraded")
            assert "no progress" in executor.status().detail
            with pytest.raises(EngineFailed, match="no progress for"):
                await hanging
            with pytest.raises(NotReady, match="no progress for"):
                await ask(executor)
            assert executor.status().state == "unhealthy"
            gate.open.set()
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "in __call__" in told
    assert "self.open.wait" in told


async def test_an_engine_that_is_merely_slow_for_a_while_loses_nothing() -> None:
    gate = Gate(2)
    async with running(counting_loader(CountingEngine(gate)), stall_seconds=1.0) as executor:
        asked = asyncio.ensure_future(ask(executor))
        await until(lambda: executor.status().state == "degraded")
        gate.open.set()
        assert text_of(await asked) == "1 2 3 "
        assert executor.status().state == "healthy"


async def test_idling_is_no_stall() -> None:
    async with running(counting_loader(CountingEngine()), stall_seconds=0.5) as executor:
        await ask(executor)
        for _ in range(2):
            await asyncio.sleep(0.6)
            assert executor.status().state == "healthy"
            assert text_of(await ask(executor)) == "1 2 3 "
