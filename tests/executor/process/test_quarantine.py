"""A request that ends every process it runs in: the others are answered, and it ends few."""

import asyncio

import pytest

from service.errors import AnswerLost, Unrunnable
from service.executor.process.call_messages import SubmitCall
from service.executor.process.pending_call import PendingCall
from service.executor.process.quarantine import REFUSED_SECONDS, UNDELIVERED_EVENTS, Quarantine, sendable
from tests.executor.engines import question, until
from tests.executor.process.test_engine_process import WAYS, ask, outcome, running, until_state

ONE_AT_A_TIME = {"max_concurrency": 1}


@pytest.mark.parametrize("stage", ["rendering", "reading"])
@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("raise", "sys.exit")])
async def test_neighbours_of_a_request_that_ends_processes_are_answered(stage: str, way: str) -> None:
    async with running(at=stage, how=way, word="poison", settings=ONE_AT_A_TIME) as engine:
        texts = ["poison", "a", "b", "c", "d"]
        # One token is sent whole or not at all.
        poisoned, *answers = await asyncio.gather(*[outcome(engine, text, max_tokens=1) for text in texts])
        assert isinstance(poisoned, Unrunnable)
        assert "while it ran this request alone" in poisoned.message
        assert answers == ["1 "] * 4
        restarts = engine.status().engine_restarts
        assert restarts <= 3
        assert isinstance(await outcome(engine, "poison", max_tokens=1), Unrunnable)
        assert await ask(engine) == "1 2 3 "
        assert engine.status().engine_restarts == restarts


async def test_a_client_that_repeats_a_deadly_request_ends_two_processes() -> None:
    async with running(at="decoding", how="SIGKILL", word="poison", step_seconds=0.1) as engine:
        answers = [await outcome(engine, "poison", max_tokens=9) for _ in range(4)]
        assert [type(answer) for answer in answers] == [AnswerLost, Unrunnable, Unrunnable, Unrunnable]
        assert engine.status().engine_restarts == 2


async def test_neighbours_that_have_begun_fail_once_only() -> None:
    async with running(at="decoding", how="SIGKILL", word="poison", step_seconds=0.1) as engine:
        await until_state(engine, "healthy")
        neighbour = asyncio.ensure_future(outcome(engine, "neighbour", max_tokens=20))
        await until(lambda: engine.status().generated_tokens > 0)
        assert isinstance(await outcome(engine, "poison", max_tokens=20), AnswerLost)
        assert isinstance(await neighbour, AnswerLost)
        repeated = await asyncio.gather(*[outcome(engine, text, max_tokens=20) for text in ("poison", "neighbour")])
        assert isinstance(repeated[0], Unrunnable)
        assert str(repeated[1]).endswith("19 20 ")


async def test_deadly_requests_do_not_bring_down_an_engine_that_answers_others() -> None:
    async with running(at="reading", how="SIGKILL", word="poison") as engine:
        for number in range(4):
            assert isinstance(await outcome(engine, f"poison {number}"), Unrunnable)
            assert await ask(engine) == "1 2 3 "


async def test_loading_again_forgets_the_guilty() -> None:
    async with running(at="reading", how="SIGKILL", word="poison") as engine:
        assert isinstance(await outcome(engine, "poison"), Unrunnable)
        await engine.unload()
        assert isinstance(await outcome(engine, "poison"), Unrunnable)
        assert engine.status().engine_restarts == 4


def call(text: str, *, inside: bool = True, started: bool = False, events: int = 0) -> PendingCall:
    made = PendingCall(SubmitCall(0, question(text)), 1, lambda _: None)
    made.inside, made.read_tokens, made.received = inside, 0 if started else None, events
    return made


async def test_only_calls_at_work_become_suspects() -> None:
    waiting, reading, writing = call("a"), call("b", started=True), call("c", started=True, events=3)
    failing = Quarantine().blame([waiting, reading, writing], "It died")
    assert [(each, type(error)) for each, error in failing] == [(writing, AnswerLost)]
    assert (waiting.suspected, reading.alone_until) == (False, 0)
    assert writing.alone_until == 3 + UNDELIVERED_EVENTS


async def test_a_call_that_waited_in_two_processes_that_died_is_a_suspect() -> None:
    waiting, quarantine = call("a"), Quarantine()
    for text in ("b", "c"):
        waiting.inside = True
        assert not waiting.suspected
        quarantine.blame([waiting, call(text, started=True)], "It died")
    assert waiting.suspected


async def test_if_nothing_was_at_work_all_are_suspects() -> None:
    calls = [call("a"), call("b")]
    assert Quarantine().blame(calls, "It died") == []
    assert all(each.suspected for each in calls)


async def test_a_process_that_died_before_it_got_a_call_is_not_the_calls_fault() -> None:
    outside = call("a", inside=False)
    assert Quarantine().blame([outside], "It died") == []
    assert (outside.deaths, outside.suspected) == (0, False)


async def test_suspects_run_first_and_alone() -> None:
    free, first, second = (call(text, inside=False) for text in "abc")
    first.alone_until = second.alone_until = 0
    calls = [free, first, second]
    assert sendable(calls) == [first]
    first.inside = True
    assert sendable(calls) == []
    first.alone_until = None
    assert sendable(calls) == []
    assert sendable([free, second]) == [second]
    assert sendable([first, free]) == [free]


async def test_an_acquitted_request_is_no_suspect_when_it_comes_again() -> None:
    quarantine, again = Quarantine(), call("a", inside=False)
    suspect = call("a", started=True, events=1)
    quarantine.blame([suspect], "It died")
    quarantine.check(again)
    assert again.alone_until == 1 + UNDELIVERED_EVENTS
    quarantine.acquit(again)
    quarantine.check(again)
    assert not again.suspected


async def test_a_guilty_request_is_tried_again_alone_after_a_while() -> None:
    time = [0.0]
    quarantine, suspect = Quarantine(lambda: time[0]), call("a", started=True)
    assert quarantine.blame([suspect], "It died") == []
    suspect.inside = True
    [(_, refusal)] = quarantine.blame([suspect], "It died again")
    assert isinstance(refusal, Unrunnable)
    time[0] = REFUSED_SECONDS - 1
    with pytest.raises(Unrunnable, match="It died again, while it ran this request alone"):
        quarantine.check(call("a"))
    time[0] = REFUSED_SECONDS
    again = call("a")
    quarantine.check(again)
    assert again.suspected
    assert isinstance(quarantine.blame([again], "It died")[0][1], Unrunnable)
    with pytest.raises(Unrunnable):
        quarantine.check(call("a"))
    time[0] = 2 * REFUSED_SECONDS
    again = call("a")
    quarantine.check(again)
    quarantine.acquit(again)
    free = call("a")
    quarantine.check(free)
    assert not free.suspected
