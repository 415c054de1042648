"""An engine process dies in every way, at every stage: nobody is forgotten, nothing wrong is answered, none is left."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from service.device.memory import LoadNeeds
from service.errors import (
    AnswerLost,
    BadRequest,
    ContextLengthExceeded,
    EngineFailed,
    GenerationTimeout,
    NotReady,
    Overloaded,
    ServiceError,
    ShuttingDown,
    Unrunnable,
)
from service.events import Event
from service.executor.base import collect
from service.executor.process.call_messages import EngineSpec, ToServer
from service.executor.process.child import Child, ending
from service.executor.process.engine_process import DEATHS_AT_MOST, WATCH_SECONDS, EngineProcess, load_seconds
from service.generation import Completion, ResponseFormat
from service.own_python import own_python
from service.queries import Detokenize, TextFound, Tokenize, TokensFound
from service.settings import Settings
from tests.executor.engines import question, until
from tests.executor.process.engines import WEIGHT_BYTES, spec
from tests.no_home import NO_HOME
from tests.patience import PATIENCE_SECONDS

DEATHS = ["SIGKILL", "SIGSEGV", "SIGABRT", "exit"]
WAYS = [*DEATHS, "sys.exit", "raise"]
WAYS_OF_THE_WIRE = ["garbage", "another type", "oversized", "half a frame"]
ABORTED = "Fatal Python error: Aborted"
UNSENT_STAGES = ["rendering", "reading"]


@asynccontextmanager
async def running(
    factory: str = "counting",
    *,
    deaths_at_most: int = DEATHS_AT_MOST,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[EngineProcess]:
    configured = Settings(home=NO_HOME, **({"shutdown_grace_seconds": 5.0} | (settings or {})))
    engine = EngineProcess(spec(factory, configured, **options), deaths_at_most=deaths_at_most)
    await engine.start()
    pids = set()
    try:
        yield engine
    finally:
        pids.add(engine.pid)
        await engine.aclose()
        assert engine.pid is None
        assert not any(is_there(pid) for pid in pids if pid is not None)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ask(engine: EngineProcess, text: str = "hello", *, seen: Path | None = None, **fields: Any) -> str:
    """Makes the file `seen` at the first event."""
    answer = await engine.submit(question(text, **{"max_tokens": 3, **fields}))
    return text_of(await collect(marked(answer.events(), seen)))


async def marked(events: AsyncIterator[Event], seen: Path | None) -> AsyncIterator[Event]:
    async for event in events:
        if seen is not None:
            seen.touch()  # noqa: ASYNC240 - it takes microseconds
        yield event


async def outcome(
    engine: EngineProcess, text: str = "hello", *, seen: Path | None = None, **fields: Any
) -> str | ServiceError:
    try:
        return await ask(engine, text, seen=seen, **fields)
    except ServiceError as error:
        return error


def deep() -> Any:
    value: Any = {}
    for _ in range(2_000):
        value = {"a": value}
    return value


def text_of(completion: Completion) -> str:
    return completion.choices[0].text


async def until_state(engine: EngineProcess, state: str) -> None:
    await until(lambda: engine.status().state == state)


async def test_it_answers_counts_and_ends() -> None:
    async with running() as engine:
        answer = await engine.submit(question("how many words", max_tokens=3, n=2))
        completion = await collect(answer.events())
        assert answer.prompt_tokens == 3
        assert [choice.text for choice in completion.choices] == ["1 2 3 "] * 2
        assert await engine.count_tokens(question("a b c d")) == 4
        assert (engine.status().state, engine.status().running, engine.status().waiting) == ("healthy", 0, 0)


async def test_what_a_load_needs_does_not_grow_with_answers() -> None:
    async with running(step_seconds=0.005) as engine:
        await until_state(engine, "healthy")
        assert (engine.loaded_bytes, engine.status().memory_bytes) == (WEIGHT_BYTES, WEIGHT_BYTES)
        answer = await engine.submit(question(max_tokens=900))
        await until(lambda: (engine.status().memory_bytes or 0) > WEIGHT_BYTES)
        await answer.aclose()
        assert engine.loaded_bytes == WEIGHT_BYTES


async def test_an_answer_shows_how_much_of_its_prompt_is_read() -> None:
    async with running(settings={"max_concurrency": 1}, step_seconds=0.05) as engine:
        reading = await engine.submit(question("word " * 99, max_tokens=1))
        await until(lambda: 0 < (reading.read_tokens or 0) < 98)
        waiting = await engine.submit(question("word", max_tokens=1))
        assert waiting.read_tokens is None
        for answer in (reading, waiting):
            await collect(answer.events())
        assert (reading.read_tokens, waiting.read_tokens) == (98, 0)


async def test_a_request_waits_for_the_process_to_start() -> None:
    async with running() as engine:
        asking = asyncio.ensure_future(ask(engine))
        await asyncio.sleep(0)
        assert (engine.status().state, engine.status().waiting) == ("loading", 1)
        assert await asking == "1 2 3 "


async def test_errors_arrive_as_they_were_raised() -> None:
    async with running("scripted") as engine:
        with pytest.raises(ContextLengthExceeded, match="5 tokens") as refused:
            await ask(engine, "too-long")
        assert (refused.value.status, refused.value.param, refused.value.prompt_tokens) == (400, "messages", 7)


async def test_a_full_queue_refuses_at_once_also_before_the_process_is_there() -> None:
    async with running(settings={"max_concurrency": 1, "max_queue": 1}) as engine:
        asking = [asyncio.ensure_future(outcome(engine)) for _ in range(4)]
        answers = await asyncio.gather(*asking)
        assert answers[:2] == ["1 2 3 "] * 2
        assert all(isinstance(answer, Overloaded) and answer.retry_after for answer in answers[2:])


async def test_a_reader_who_leaves_frees_the_place() -> None:
    async with running(settings={"max_concurrency": 1}, step_seconds=0.005) as engine:
        answer = await engine.submit(question(max_tokens=900))
        waiting = asyncio.ensure_future(engine.submit(question(max_tokens=900)))
        await until(lambda: engine.status().waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await answer.aclose()
        assert await ask(engine) == "1 2 3 "
        await until(lambda: engine.status().running == engine.status().waiting == 0)


async def test_a_request_that_cannot_be_passed_on_is_refused() -> None:
    async with running() as engine:
        await until_state(engine, "healthy")
        assert isinstance(await outcome(engine, template_arguments=deep()), BadRequest)
        assert await ask(engine) == "1 2 3 "


@pytest.mark.parametrize("stage", UNSENT_STAGES)
@pytest.mark.parametrize("way", WAYS)
async def test_what_has_sent_nothing_runs_again(way: str, stage: str, tmp_path: Path) -> None:
    async with running(at=stage, how=way, once=str(tmp_path / "once")) as engine:
        if (stage, way) == ("rendering", "raise"):
            assert isinstance(await outcome(engine), ServiceError)  # the request's own failure, not the engine's
            assert await ask(engine) == "1 2 3 "
            return
        assert await asyncio.gather(*[ask(engine, "a b c d") for _ in range(5)]) == ["1 2 3 "] * 5
        assert (engine.status().state, engine.status().engine_restarts) == ("healthy", 1)


@pytest.mark.parametrize("way", WAYS)
async def test_what_has_sent_something_fails_and_the_rest_runs_again(way: str, tmp_path: Path) -> None:
    once, seen = str(tmp_path / "once"), tmp_path / "seen"
    settings = {"max_concurrency": 1}
    async with running(at="decoding", how=way, once=once, seen=str(seen), settings=settings) as engine:
        answers = await asyncio.gather(*[outcome(engine, seen=seen) for _ in range(4)])
        assert [type(answer) for answer in answers if answer != "1 2 3 "] == [AnswerLost]
        assert engine.status().engine_restarts == 1


@pytest.mark.parametrize("way", WAYS_OF_THE_WIRE)
async def test_an_engine_that_sends_nonsense_is_replaced(way: str, tmp_path: Path) -> None:
    async with running(at="reading", how=way, once=str(tmp_path / "once")) as engine:
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 1


@pytest.mark.parametrize("way", [*DEATHS, "SIGSTOP"])
async def test_an_engine_that_dies_or_stops_idle_is_replaced(way: str, tmp_path: Path) -> None:
    async with running(at="idle", how=way, once=str(tmp_path / "once"), settings={"stall_seconds": 2.0}) as engine:
        await until(lambda: engine.status().engine_restarts == 1)
        assert await ask(engine) == "1 2 3 "


async def test_an_engine_that_was_paused_with_its_server_is_not_replaced() -> None:
    async with running(settings={"stall_seconds": 2.0}) as engine:
        assert await ask(engine) == "1 2 3 "
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5)  # noqa: ASYNC251 - the event loop stands still too
        os.kill(pid, signal.SIGCONT)
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS tells no process that its parent has died")
def test_an_engine_whose_server_died_before_it_began_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = own_python("-m", "service.executor.process", str(theirs.fileno()), "1")
        ended = subprocess.run(command, pass_fds=(theirs.fileno(),), timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("way", DEATHS)
@pytest.mark.parametrize("stage", ["making", "loading"])
async def test_an_engine_that_dies_while_it_loads_is_replaced(way: str, stage: str, tmp_path: Path) -> None:
    async with running(at=stage, how=way, once=str(tmp_path / "once")) as engine:
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 1


@pytest.mark.parametrize("way", [*DEATHS, "raise", "SIGSTOP"])
async def test_an_engine_that_dies_or_hangs_when_it_is_unloaded_and_closed_is_gone(way: str) -> None:
    async with running(at="closing", how=way, settings={"shutdown_grace_seconds": 1.0}) as engine:
        assert await ask(engine) == "1 2 3 "
        pid = engine.pid
        assert pid is not None
        await engine.unload()
        assert not is_there(pid)
        assert (engine.status().unloaded, engine.status().state) == (True, "healthy")
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 0


async def test_a_request_does_not_wait_for_ever_for_a_load_that_goes_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(load_after=str(gate), settings={"queue_timeout_seconds": 1.0}) as engine:
        refused = await outcome(engine)
        assert isinstance(refused, NotReady)
        assert (refused.message.partition(".")[0], engine.status().state, engine.status().waiting) == (
            "counting was not ready within 1 seconds",
            "loading",
            0,
        )
        assert refused.retry_after
        gate.touch()
        await until_state(engine, "healthy")
        assert await ask(engine) == "1 2 3 "


async def test_a_request_that_lost_its_engine_does_not_wait_for_ever_for_the_next(tmp_path: Path) -> None:
    once, gate = tmp_path / "once", tmp_path / "gate"
    gate.touch()
    fault = {"at": "reading", "how": "SIGKILL", "once": str(once), "load_after": str(gate)}
    async with running(**fault, settings={"queue_timeout_seconds": 1.0}) as engine:
        await until_state(engine, "healthy")
        gate.unlink()
        assert isinstance(await outcome(engine), NotReady)
        assert once.exists()
        assert engine.status().state == "loading"


async def test_the_context_that_fits_is_known_after_an_unload() -> None:
    async with running() as engine:
        assert await ask(engine) == "1 2 3 "
        fits = engine.status().context_tokens
        assert fits is not None
        await engine.unload()
        assert engine.status().context_tokens == fits
        await engine.load()
        assert (engine.status().state, engine.status().context_tokens) == ("loading", fits)


async def test_an_engine_that_dies_again_and_again_is_given_up() -> None:
    async with running(at="reading", how="SIGABRT", deaths_at_most=2) as engine:
        first, second, third = [type(await outcome(engine, text)) for text in ("a", "b", "c")]
        assert (first, third) == (Unrunnable, NotReady)
        assert second in (EngineFailed, NotReady), "the process may end before it has accepted the request"
        assert engine.status().state == "unhealthy"
        assert "killed by SIGABRT: Fatal Python error: Aborted. It has ended 3 times" in engine.status().detail
        assert engine.pid is None


@pytest.mark.parametrize(("way", "why"), [("raise", "injected"), ("sys.exit", "the library gives up")])
async def test_a_model_that_cannot_be_loaded_is_not_loaded_again(way: str, why: str) -> None:
    async with running(at="loading", how=way) as engine:
        with pytest.raises(NotReady, match=f"counting could not be loaded: .*{why}"):
            await ask(engine)
        assert (engine.status().state, engine.status().engine_restarts) == ("unhealthy", 0)
        assert why in engine.status().detail
        assert engine.pid is None


async def test_a_load_without_enough_memory_is_tried_again_but_not_at_once(tmp_path: Path) -> None:
    processes: list[Child] = []

    def spawn(receive: Callable[[list[ToServer]], None]) -> Child:
        processes.append(Child(receive))
        return processes[-1]

    made = spec("counting", at="loading", how="no room", once=str(tmp_path / "once"))
    engine = EngineProcess(made, spawn=spawn)
    try:
        for _ in range(3):
            refused = await asyncio.gather(*[outcome(engine) for _ in range(5)])
            assert {str(error) for error in refused} == {
                "The model counting could not be loaded: other programs have the memory"
            }
        assert (engine.status().state, len(processes)) == ("unhealthy", 1)
        await until(lambda: engine.status().unloaded)
        assert engine.status().state == "healthy"
        assert await ask(engine) == "1 2 3 "
        assert (engine.status().engine_restarts, len(processes)) == (0, 2)
    finally:
        await engine.aclose()


async def test_a_load_that_hangs_is_ended_and_tried_again_but_not_at_once(tmp_path: Path) -> None:
    gate, limit = tmp_path / "gate", 1.0
    engine = EngineProcess(spec("counting", load_after=str(gate)), load_within=lambda _: limit)
    try:
        for _ in range(3):
            refused = await outcome(engine)
            assert isinstance(refused, NotReady)
            assert "it had not loaded the model after" in refused.message
            assert refused.retry_after
        assert (engine.status().state, engine.pid) == ("unhealthy", None)
        gate.touch()
        limit = PATIENCE_SECONDS
        await until(lambda: engine.status().unloaded)
        assert await ask(engine) == "1 2 3 "
        limit = 0.0
        await asyncio.sleep(1.5 * WATCH_SECONDS)  # a loaded engine has no limit
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 0
    finally:
        await engine.aclose()


@pytest.mark.parametrize("hanging", [0, 1], ids=["before the process", "after the load"])
async def test_files_that_cannot_be_read_to_their_end_do_not_hold_a_load(hanging: int) -> None:
    """A network drive may hang at any time: the files are read before the process starts, and when it has loaded."""
    limit, readings = 3.0, 0

    async def identify(spec: EngineSpec) -> EngineSpec:
        nonlocal readings
        readings += 1
        if readings == hanging + 1:
            await asyncio.Event().wait()
        return spec

    engine = EngineProcess(spec("counting"), identify=identify, load_within=lambda _: limit)
    try:
        refused = await outcome(engine)
        assert isinstance(refused, NotReady)
        assert ("could not be read within 3 s", "it had not loaded the model after")[hanging] in refused.message
        assert refused.retry_after
        limit = PATIENCE_SECONDS
        await until(lambda: engine.status().unloaded)
        assert await ask(engine) == "1 2 3 "
    finally:
        await engine.aclose()


@pytest.mark.parametrize("how", ["no room", "raise"])
async def test_the_files_of_a_model_that_failed_are_read_again(how: str) -> None:
    """Else the answers of the old files would be hits after the model was repaired or replaced."""
    fingerprint = "old"

    async def identify(made: EngineSpec) -> EngineSpec:
        return replace(made, profile=replace(made.profile, fingerprint=fingerprint))

    engine = EngineProcess(spec("counting", at="loading", how=how), identify=identify)
    try:
        assert isinstance(await outcome(engine), NotReady)
        await until(lambda: not engine.profile.fingerprint)
        fingerprint = "new"
        await engine.identify()
        assert engine.profile.fingerprint == "new"
    finally:
        await engine.aclose()


async def test_counts_are_refused_when_the_queue_is_full(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    settings = {"max_concurrency": 1, "max_queue": 1}
    async with running(load_after=str(gate), settings=settings) as engine:
        counting = [asyncio.ensure_future(engine.count_tokens(question("a b"))) for _ in range(2)]
        await until(lambda: engine.busy)
        with pytest.raises(Overloaded):
            await engine.count_tokens(question("a b"))
        gate.touch()
        assert await asyncio.gather(*counting) == [2, 2]


@pytest.mark.parametrize(("gigabytes", "minutes"), [(0.3, 11), (18, 70), (120, 410)])
def test_a_load_may_take_as_long_as_a_slow_drive(gigabytes: float, minutes: float) -> None:
    assert load_seconds(LoadNeeds(weight_bytes=int(gigabytes * 1e9))) == minutes * 60


async def test_a_fork_that_keeps_the_socket_of_a_dead_engine_is_not_waited_for(tmp_path: Path) -> None:
    async with running(at="reading", how="leave a fork", once=str(tmp_path / "once")) as engine:
        async with asyncio.timeout(50):  # the fork ends after 60 s
            assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 1


async def test_an_executor_that_cannot_start_is_a_death() -> None:
    async with running("unstartable", deaths_at_most=1) as engine:
        with pytest.raises(NotReady, match="The executor could not be started"):
            await ask(engine)


async def test_last_words_are_the_reason(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with running(at="reading", how="SIGSEGV", once=str(tmp_path / "once")) as engine:
        assert await ask(engine) == "1 2 3 "
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "The engine process has ended: it was killed by SIGSEGV: Fatal Python error: Segmentation fault" in told
    assert "in step" in told


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a warning", "libc++abi: [METAL] no memory", ABORTED, "  File"], "libc++abi: [METAL] no memory"),
        (["terminate called", "  what():  no memory", ABORTED, "  File"], "what():  no memory"),
        (["a warning", ABORTED, "  File"], ABORTED),
        (["a warning", "the last line"], "the last line"),
        ([], ""),
    ],
)
def test_a_library_that_aborts_gives_the_reason(lines: list[str], words: str) -> None:
    assert ending(-signal.SIGABRT, lines) == "it was killed by SIGABRT" + (f": {words}" if words else "")


@pytest.mark.parametrize("way", ["SIGSTOP", "spin"])
async def test_an_engine_that_makes_no_progress_is_replaced(way: str, tmp_path: Path) -> None:
    """`spin` is a step that does not end; SIGSTOP also silences the process."""
    async with running(at="reading", how=way, once=str(tmp_path / "once"), settings={"stall_seconds": 2.0}) as engine:
        await until_state(engine, "healthy")
        asking = asyncio.ensure_future(ask(engine))
        await until_state(engine, "degraded")
        assert await asking == "1 2 3 "
        assert (engine.status().state, engine.status().engine_restarts) == ("healthy", 1)


async def test_an_engine_that_stops_within_an_answer_is_replaced(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    fault = {"at": "decoding", "how": "SIGSTOP", "once": str(tmp_path / "once"), "seen": str(seen)}
    async with running(**fault, settings={"stall_seconds": 2.0}) as engine:
        assert isinstance(await outcome(engine, seen=seen), AnswerLost)
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 1


@pytest.mark.parametrize(
    ("stage", "way", "why"),
    [
        ("rendering", "spin", "within 6 seconds"),
        ("counting", "spin", "within 6 seconds"),
        ("compiling", "spin", "within 6 seconds"),
        ("rendering", "swell", "of memory"),
        ("rendering", "a swelling template", "of memory"),
    ],
)
async def test_a_prompt_that_is_never_ready_fails_alone(stage: str, way: str, why: str, tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    async with running(at=stage, how=way, once=once, render_seconds=6.0 if way == "spin" else 30.0) as engine:
        request = question(response_format=ResponseFormat(kind="json_object") if stage == "compiling" else None)
        stuck = asyncio.ensure_future(engine.count_tokens(request) if stage == "counting" else engine.submit(request))
        await until(Path(once).exists)
        others = [asyncio.ensure_future(ask(engine)) for _ in range(3)]
        await until(lambda: engine.status().waiting == 4)
        if way == "spin":
            await until(lambda: "a prompt has been in preparation for" in engine.status().detail)
            assert engine.status().state == "degraded"
        with pytest.raises(GenerationTimeout, match=why):
            await stuck
        assert await asyncio.gather(*others) == ["1 2 3 "] * 3
        assert engine.status().engine_restarts == 1


async def test_closing_fails_what_runs_and_what_comes() -> None:
    async with running(step_seconds=0.005) as engine:
        asking = [asyncio.ensure_future(outcome(engine, max_tokens=900)) for _ in range(3)]
        await until(lambda: engine.status().running == 2)
        once, again = asyncio.create_task(engine.aclose()), asyncio.create_task(engine.aclose())
        await asyncio.sleep(0)
        once.cancel()
        await again
        assert [type(answer) for answer in await asyncio.gather(*asking)] == [ShuttingDown] * 3
        with pytest.raises(ShuttingDown):
            await ask(engine)


async def test_closing_does_not_wait_for_a_model_that_loads() -> None:
    async with running(at="loading", how="spin", settings={"shutdown_grace_seconds": 120.0}) as engine:
        await until(lambda: engine.pid is not None)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await engine.aclose()


async def test_closing_does_not_wait_for_a_prompt_that_is_never_ready(tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    async with running(at="rendering", how="spin", once=once, settings={"shutdown_grace_seconds": 0.5}) as engine:
        stuck = asyncio.ensure_future(outcome(engine))
        await until(Path(once).exists)
    assert isinstance(await stuck, ShuttingDown)


async def test_signals_to_everybody_leave_the_engine_to_the_server() -> None:
    async with running() as engine:
        await until_state(engine, "healthy")
        assert engine.pid is not None
        assert os.getpgid(engine.pid) == engine.pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(engine.pid, number)
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == 0


async def test_what_the_tokenizer_knows_crosses_the_socket() -> None:
    async with running("scripted") as engine:
        found = await engine.ask(Tokenize("hä"))
        assert found == TokensFound((104, 228), (b"h", "ä".encode()))
        assert await engine.ask(Detokenize(found.tokens)) == TextFound("hä")
