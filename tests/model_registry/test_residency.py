"""Engines are loaded when they are wanted, and make room for each other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.device.figures import DeviceFigures
from service.device.memory import LoadNeeds
from service.errors import NotReady
from service.executor.process.engine_process import EngineProcess
from service.model_registry.residency import PROCESS_BYTES, Residency
from service.settings import Settings
from tests.device.machines import card, linux, mac
from tests.executor.engines import question, until
from tests.executor.process.engines import spec
from tests.executor.process.test_engine_process import ask, is_there, outcome
from tests.no_home import NO_HOME

GIB = 2**30


class Machine:
    """Each resident engine takes the memory of its process and weights."""

    def __init__(self, empty: DeviceFigures, engines: list[EngineProcess]) -> None:
        self._empty = empty
        self._engines = engines

    def read(self) -> DeviceFigures:
        taken = sum(PROCESS_BYTES + each.spec.needs.weight_bytes for each in self._engines if each.resident)
        field = "card_free" if self._empty.kind == "cuda" else "free"
        free = getattr(self._empty, field)
        return msgspec.structs.replace(self._empty, **{field: None if free is None else free - taken})


def machine_with(gib: float) -> DeviceFigures:
    """All of it can be used."""
    return DeviceFigures(system="linux", cores=8, total=0, free=int(gib * GIB))


def engine(
    name: str, gib: float = 1.0, *, token_bytes: int = 0, patience: float = 600.0, **options: Any
) -> EngineProcess:
    """`gib` for its process and weights."""
    settings = Settings(home=NO_HOME, shutdown_grace_seconds=1.0, queue_timeout_seconds=patience)
    made = spec("counting", settings, **options)
    profile = msgspec.structs.replace(made.profile, id=name)
    needs = LoadNeeds(weight_bytes=int(gib * GIB) - PROCESS_BYTES, token_bytes=token_bytes)
    return EngineProcess(msgspec.structs.replace(made, profile=profile, needs=needs))


@asynccontextmanager
async def residing(
    *engines: EngineProcess,
    gib: float = 100.0,
    empty: DeviceFigures | None = None,
    pinned: set[EngineProcess] | None = None,
    idle: float | None = None,
) -> AsyncIterator[Residency]:
    machine = Machine(empty or machine_with(gib), list(engines))
    residency = Residency(list(engines), pinned or set(), idle_seconds=idle, read_device=machine.read)
    await residency.start()
    try:
        yield residency
    finally:
        await residency.aclose()


async def test_an_engine_is_loaded_at_its_first_request_by_one_load() -> None:
    first, second = engine("first"), engine("second")
    async with residing(first, second):
        assert (second.resident, second.status().unloaded, second.status().state) == (False, True, "healthy")
        assert await asyncio.gather(*[ask(second) for _ in range(5)]) == ["1 2 3 "] * 5
        assert second.status().engine_restarts == 0
        assert await ask(first) == "1 2 3 "


async def test_the_least_recently_used_engine_gives_way() -> None:
    first, second, third = engine("first"), engine("second"), engine("third")
    async with residing(first, second, third, gib=2.5):
        assert [await ask(each) for each in (first, second, first, third)] == ["1 2 3 "] * 4
        assert [each.resident for each in (first, second, third)] == [True, False, True]
        assert await ask(second) == "1 2 3 "
        assert [each.resident for each in (first, second, third)] == [False, True, True]


# The second needs its process, its weights, and 0.42 GiB for 4,096 tokens.
@pytest.mark.parametrize(
    ("empty", "gib", "stays"),
    [
        (mac("M1 Pro", 32), 11.7, True),
        (mac("M1 Pro", 32), 11.9, False),
        (linux(64), 23.7, True),
        (linux(64), 23.9, False),
        (card("RTX 4090", 24, host_gib=16), 11.2, True),
        (card("RTX 4090", 24, host_gib=16), 11.4, False),
        (msgspec.structs.replace(linux(64), free=None), 99.0, True),
    ],
    ids=["Mac", "full Mac", "Linux", "full Linux", "card", "full card", "unknown"],
)
async def test_room_is_made_by_the_sum_that_a_load_checks(empty: DeviceFigures, gib: float, stays: bool) -> None:
    first, second = engine("first", gib=gib), engine("second", gib=gib, token_bytes=98_304)
    async with residing(first, second, empty=empty):
        assert [await ask(each) for each in (first, second)] == ["1 2 3 "] * 2
        assert first.resident == stays


async def test_an_engine_that_answers_does_not_give_way() -> None:
    first, second = engine("first", step_seconds=0.005), engine("second")
    async with residing(first, second, gib=1.5):
        answering = await first.submit(question(max_tokens=900))
        await until(lambda: first.status().running == 1)
        with pytest.raises(
            NotReady, match=r"second needs 1\.0 GiB of memory, 0\.5 GiB are free, and first cannot"
        ) as error:
            await ask(second)
        assert error.value.retry_after
        assert first.status().running == 1
        await answering.aclose()
        await until(lambda: not first.busy)
        assert await ask(second) == "1 2 3 "
        assert not first.resident


async def test_a_pinned_engine_is_loaded_at_the_start_and_stays() -> None:
    first, second, third = engine("first"), engine("second"), engine("third")
    async with residing(first, second, third, gib=2.5, pinned={second}, idle=0.2):
        await until(lambda: second.status().state == "healthy" and not second.status().unloaded)
        await until(lambda: not first.resident)
        assert await ask(third) == "1 2 3 "
        assert await ask(first) == "1 2 3 "
        assert second.resident


async def test_an_engine_that_nobody_uses_is_unloaded_and_loaded_again() -> None:
    only = engine("only")
    async with residing(only, idle=0.2):
        assert await ask(only) == "1 2 3 "
        pid = only.pid
        assert pid is not None
        await until(lambda: not only.resident)
        assert not is_there(pid)
        assert only.status().unloaded
        tokens = only.status().generated_tokens
        assert await ask(only) == "1 2 3 "
        assert only.status().generated_tokens == tokens + 3


async def test_an_engine_is_idle_from_its_load_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    only = engine("only", load_after=str(gate))
    async with residing(only):
        await only.load()
        await until(lambda: only.loading)
        loaded_after = asyncio.get_running_loop().time()
        gate.touch()
        await only.until_loaded()
        assert only.used_at >= loaded_after


async def test_an_engine_larger_than_the_machine_is_tried_alone() -> None:
    huge = engine("huge", gib=1000)
    async with residing(huge, gib=1.0):
        assert await ask(huge) == "1 2 3 "


async def test_unloading_waits_for_no_answer_and_refuses_instead() -> None:
    first = engine("first", step_seconds=0.005)
    async with residing(first) as residency:
        answering = await first.submit(question(max_tokens=900))
        await until(lambda: first.status().running == 1)
        with pytest.raises(NotReady, match="is answering"):
            await residency.unload(first)
        await answering.aclose()
        await until(lambda: not first.busy)
        await residency.unload(first)
        assert not first.resident


async def test_a_failed_load_is_told_to_all_who_wait_and_may_be_tried_again(tmp_path: Path) -> None:
    first, broken = engine("first"), engine("broken", at="loading", how="raise", once=str(tmp_path / "once"))
    async with residing(first, broken) as residency:
        answers = await asyncio.gather(*[outcome(broken) for _ in range(3)])
        assert [type(answer) for answer in answers] == [NotReady] * 3
        assert broken.status().state == "unhealthy"
        assert isinstance(await outcome(broken), NotReady)
        await residency.load(broken)
        assert await ask(broken) == "1 2 3 "


async def test_a_request_that_arrives_while_its_engine_ends_is_answered_by_the_next() -> None:
    first = engine("first")
    async with residing(first) as residency:
        assert await ask(first) == "1 2 3 "
        unloading = asyncio.create_task(residency.unload(first))
        await until(lambda: not first.takes_calls)
        assert await ask(first) == "1 2 3 "
        await unloading


async def test_a_request_that_arrives_while_its_engine_ends_unloads_no_other() -> None:
    first, neighbour = engine("first"), engine("neighbour")
    async with residing(first, neighbour, gib=2.5) as residency:
        assert [await ask(each) for each in (first, neighbour)] == ["1 2 3 "] * 2
        pid = neighbour.pid
        unloading = asyncio.create_task(residency.unload(first))
        await until(lambda: first.ending)
        assert await ask(first) == "1 2 3 "
        await unloading
        assert neighbour.pid == pid


async def test_a_client_that_leaves_does_not_end_a_load_that_others_wait_for() -> None:
    first, second = engine("first"), engine("second", load_seconds=0.3)
    async with residing(first, second):
        leaving, staying = (asyncio.ensure_future(second.submit(question())) for _ in range(2))
        await until(lambda: second.resident)
        leaving.cancel()
        answer = await staying
        assert answer.prompt_tokens == 1
        await answer.aclose()


async def test_a_load_does_not_wait_for_another_that_fits_beside_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first, slow, quick = engine("first"), engine("slow", load_after=str(gate)), engine("quick")
    async with residing(first, slow, quick):
        waiting = asyncio.ensure_future(ask(slow))
        await until(lambda: slow.resident)
        assert await ask(quick) == "1 2 3 "
        assert not waiting.done()
        gate.touch()
        assert await waiting == "1 2 3 "


async def test_a_load_without_room_beside_another_waits_for_its_end(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first, slow, third = engine("first"), engine("slow", load_after=str(gate)), engine("third")
    async with residing(first, slow, third, gib=2.5):
        assert await ask(first) == "1 2 3 "
        asking = [asyncio.ensure_future(ask(slow))]
        await until(lambda: slow.resident)
        asking.append(asyncio.ensure_future(ask(third)))
        await until(lambda: third.busy)
        assert (first.resident, third.resident) == (True, False)
        gate.touch()
        assert await asyncio.gather(*asking) == ["1 2 3 "] * 2
        assert (first.resident, slow.resident, third.resident) == (False, True, True)


async def test_a_load_that_waits_for_another_does_not_hold_up_one_that_fits(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first, slow = engine("first"), engine("slow", load_after=str(gate))
    large, small = engine("large", gib=3.0), engine("small")
    async with residing(first, slow, large, small, gib=4.5):
        asking = [asyncio.ensure_future(ask(slow))]
        await until(lambda: slow.resident)
        asking.append(asyncio.ensure_future(ask(large)))
        await until(lambda: large.busy)
        assert await ask(small) == "1 2 3 "
        assert (slow.loading, large.resident) == (True, False)
        gate.touch()
        assert await asyncio.gather(*asking) == ["1 2 3 "] * 2


async def test_unloading_ends_a_load_that_hangs_and_what_waits_for_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    hanging, waiting = engine("hanging", load_after=str(gate)), engine("waiting")
    async with residing(hanging, waiting, gib=1.5) as residency, asyncio.timeout(60):
        loading = asyncio.ensure_future(residency.load(hanging))
        asking = [asyncio.ensure_future(outcome(hanging)) for _ in range(2)]
        other = asyncio.ensure_future(ask(waiting))  # has no room beside it
        await until(lambda: hanging.pid is not None and hanging.status().waiting == 2 and waiting.busy)
        pid = hanging.pid
        assert pid is not None
        await residency.unload(hanging)
        assert not is_there(pid)
        with pytest.raises(NotReady, match="hanging was unloaded"):
            await loading
        assert {str(answer) for answer in await asyncio.gather(*asking)} == {
            "The model hanging was unloaded. Try again."
        }
        assert await other == "1 2 3 "
        gate.touch()
        assert await ask(hanging) == "1 2 3 "


async def test_a_request_does_not_wait_for_ever_for_room(tmp_path: Path) -> None:
    hanging, waiting = engine("hanging", load_after=str(tmp_path / "gate")), engine("waiting", patience=0.2)
    async with residing(hanging, waiting, gib=1.5):
        refused = [await outcome(waiting) for _ in range(2)]
        assert [str(error).partition(".")[0] for error in refused] == ["waiting was not ready within 0"] * 2
        assert not waiting.resident


async def test_loading_a_model_that_cannot_be_loaded_raises_the_reason() -> None:
    first, broken = engine("first"), engine("broken", at="loading", how="raise")
    async with residing(first, broken) as residency:
        with pytest.raises(NotReady, match="broken could not be loaded"):
            await residency.load(broken)


async def test_a_pinned_engine_without_room_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    first, huge = engine("first"), engine("huge", gib=5.0)
    async with residing(first, huge, gib=2.0, pinned={first, huge}):
        await until(lambda: "A pinned model is not loaded: huge needs 5.0 GiB of memory" in caplog.text)
