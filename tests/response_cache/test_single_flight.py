"""Identical requests at the same time: one generation, and nobody's leaving or slowness is another's trouble."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from cache_backends import CacheUnavailable
from cache_backends.memory import MemoryBackend
from service.errors import AnswerLost, ContextLengthExceeded, EngineFailed, ServiceError, ShuttingDown
from service.events import ChoiceFinished, Done, Event, TextDelta
from service.executor.base import Answer
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest, Usage
from service.profile import ModelProfile
from service.response_cache.base import CacheDirectives
from service.response_cache.caching_executor import CachingExecutor
from service.response_cache.single_flight import Flight, FlightAnswer, Flights
from tests.patience import PATIENCE_SECONDS
from tests.response_cache.answers import ask, settings


class Stage:
    """A script that says each word when it is told to. It raises each of `errors` once."""

    def __init__(self, words: int = 3) -> None:
        self.gates = [asyncio.Event() for _ in range(words)]
        self.begun = asyncio.Event()
        self.errors: list[Exception] = []

    async def script(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        self.begun.set()
        for index, gate in enumerate(self.gates):
            await gate.wait()
            if self.errors:
                raise self.errors.pop()
            yield f"word{index} "

    def open(self, count: int | None = None) -> None:
        for gate in self.gates[:count]:
            gate.set()

    def executor(self, **changes: object) -> tuple[CachingExecutor, ScriptedExecutor]:
        inner = ScriptedExecutor(self.script)
        return CachingExecutor(inner, MemoryBackend(), settings(**changes)), inner


WHOLE = "word0 word1 word2 "


async def read(answer: Answer) -> str:
    return "".join([event.text async for event in answer.events() if isinstance(event, TextDelta)])


async def read_one(events: AsyncIterator[Event]) -> str:
    event = await anext(events)
    assert isinstance(event, TextDelta)
    return event.text


async def until_idle(inner: ScriptedExecutor) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while inner.running or inner.waiting:  # noqa: ASYNC110 -- nothing announces it
            await asyncio.sleep(0)


async def test_many_at_once_make_one_generation() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    answers = await asyncio.gather(*(executor.submit(ask()) for _ in range(20)))
    assert [answer.outcome for answer in answers] == ["miss"] + ["collapsed"] * 19
    streams = asyncio.gather(*(read(answer) for answer in answers[:10]))
    completions = asyncio.gather(*(answer.completion() for answer in answers[10:]))
    stage.open()
    assert await streams == [WHOLE] * 10
    assert {completion.choices[0].text for completion in await completions} == {WHOLE}
    assert len(inner.submitted) == 1
    statistics = await executor.statistics()
    assert (statistics.hits, statistics.misses, statistics.total_requests) == (19, 1, 20)
    await executor.aclose()


async def test_a_late_one_gets_what_was_produced_and_then_the_rest() -> None:
    stage = Stage()
    executor, _ = stage.executor()
    first = await executor.submit(ask())
    first_events = first.events()
    stage.open(2)
    assert [await read_one(first_events), await read_one(first_events)] == ["word0 ", "word1 "]
    late_events = (await executor.submit(ask())).events()
    assert [await read_one(late_events), await read_one(late_events)] == ["word0 ", "word1 "]
    stage.open()
    assert await read_one(late_events) == "word2 "
    assert await read_one(first_events) == "word2 "
    assert [event async for event in late_events] == [event async for event in first_events]
    await executor.aclose()


async def test_the_first_leaves_and_the_others_are_not_disturbed() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    first, second = await executor.submit(ask()), await executor.submit(ask())
    reading = asyncio.create_task(read(first))
    stage.open(1)
    await stage.begun.wait()
    reading.cancel()
    await asyncio.wait({reading})
    await first.aclose()
    stage.open()
    assert await read(second) == WHOLE
    assert inner.aborted == 0
    assert (await executor.submit(ask())).outcome == "hit"
    await executor.aclose()


async def test_the_first_leaves_before_it_was_accepted() -> None:
    gate = asyncio.Event()

    class SlowToAccept(ScriptedExecutor):
        async def submit(self, request: GenerationRequest) -> Answer:
            await gate.wait()
            return await super().submit(request)

    inner = SlowToAccept()
    executor = CachingExecutor(inner, MemoryBackend(), settings())
    first = asyncio.create_task(executor.submit(ask("a b")))
    second = asyncio.create_task(executor.submit(ask("a b")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    gate.set()
    assert await read(await second) == "a b"
    assert len(inner.submitted) == 1
    await executor.aclose()


@pytest.mark.parametrize("way", ["aclose", "leave events", "cancel completion"])
async def test_when_the_last_leaves_it_is_aborted(way: str) -> None:
    stage = Stage()
    executor, inner = stage.executor()
    answers = [await executor.submit(ask()), await executor.submit(ask())]
    await stage.begun.wait()
    for answer in answers:
        assert inner.aborted == 0
        if way == "aclose":
            await answer.aclose()
            await answer.aclose()
        elif way == "leave events":
            stage.open(1)
            events = answer.events()
            await anext(events)
            await events.aclose()  # type: ignore[attr-defined]
        else:
            waiting = asyncio.create_task(answer.completion())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
    await until_idle(inner)
    assert inner.aborted == 1
    stage.open()
    again = await executor.submit(ask())
    assert again.outcome == "miss"
    assert await read(again) == WHOLE
    await executor.aclose()


async def test_an_aborted_generation_is_not_joined() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    first = await executor.submit(ask())
    await stage.begun.wait()
    await first.aclose()
    second = await executor.submit(ask())
    assert second.outcome == "miss"
    stage.open()
    assert await read(second) == WHOLE
    assert len(inner.submitted) == 2
    await executor.aclose()


async def test_an_abandoned_one_may_finish_for_a_retry() -> None:
    stage = Stage()
    executor, inner = stage.executor(finish_abandoned_seconds=60.0)
    first = await executor.submit(ask())
    await stage.begun.wait()
    await first.aclose()
    retry = await executor.submit(ask())
    assert retry.outcome == "collapsed"
    await retry.aclose()
    stage.open()
    await until_idle(inner)
    assert (await executor.submit(ask())).outcome == "hit"
    assert inner.aborted == 0
    await executor.aclose()


async def test_an_abandoned_one_that_may_not_be_stored_is_aborted_at_once() -> None:
    stage = Stage()
    executor, inner = stage.executor(finish_abandoned_seconds=60.0)
    first = await executor.submit(ask(), CacheDirectives(no_store=True))
    await stage.begun.wait()
    await first.aclose()
    for _ in range(20):
        await asyncio.sleep(0)
    assert inner.aborted == 1
    await executor.aclose()


async def test_a_retry_outlives_the_time_that_an_abandoned_one_has() -> None:
    stage = Stage()
    executor, inner = stage.executor(finish_abandoned_seconds=0.3)
    first = await executor.submit(ask())
    await stage.begun.wait()
    await first.aclose()
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, over.set)  # behind the timer that was set just before
    retry = await executor.submit(ask())
    assert retry.outcome == "collapsed"
    await over.wait()
    stage.open()
    assert await read(retry) == WHOLE
    assert inner.aborted == 0
    await executor.aclose()


async def test_an_abandoned_one_is_aborted_in_the_end() -> None:
    stage = Stage()
    executor, inner = stage.executor(finish_abandoned_seconds=0.01)
    first = await executor.submit(ask())
    await stage.begun.wait()
    await first.aclose()
    await until_idle(inner)
    assert inner.aborted == 1
    await executor.aclose()


async def test_a_failure_is_delivered_to_all_and_not_stored() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    answers = [await executor.submit(ask()) for _ in range(3)]
    stage.open(1)
    events = answers[0].events()
    assert await read_one(events) == "word0 "
    stage.errors = [EngineFailed("It broke.")]
    stage.open()
    with pytest.raises(EngineFailed, match="It broke"):
        await anext(events)
    with pytest.raises(EngineFailed, match="It broke"):
        await read(answers[1])
    with pytest.raises(EngineFailed, match="It broke"):
        await answers[2].completion()
    assert [answer.stored for answer in answers] == [False] * 3
    again = await executor.submit(ask())
    assert again.outcome == "miss"
    assert await read(again) == WHOLE
    assert len(inner.submitted) == 2
    await executor.aclose()


async def test_a_lost_answer_is_generated_again_for_readers_that_have_seen_nothing_of_it() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    begun, whole, later = [await executor.submit(ask()) for _ in range(3)]
    completing = asyncio.ensure_future(whole.completion())
    stage.open(1)
    events = begun.events()
    assert await read_one(events) == "word0 "
    stage.errors = [AnswerLost("It died.")]
    stage.open()
    with pytest.raises(AnswerLost, match="It died"):
        await anext(events)
    assert (await completing).choices[0].text == WHOLE
    assert await read(later) == WHOLE
    assert (whole.stored, len(inner.submitted)) == (True, 2)
    assert (await executor.submit(ask())).outcome == "hit"
    await executor.aclose()


async def test_a_reader_that_waits_for_the_first_word_does_not_notice_a_loss() -> None:
    stage = Stage()
    executor, _ = stage.executor()
    reading = asyncio.ensure_future(read(await executor.submit(ask())))
    await stage.begun.wait()
    stage.errors = [AnswerLost("It died.")]
    stage.open()
    assert await reading == WHOLE
    await executor.aclose()


async def test_a_lost_answer_that_all_readers_have_begun_is_not_generated_again() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    *begun, begun_and_left, left = [await executor.submit(ask()) for _ in range(4)]
    stage.open(1)
    streams = [answer.events() for answer in (*begun, begun_and_left)]
    assert [await read_one(events) for events in streams] == ["word0 "] * 3
    await left.aclose()
    await streams.pop().aclose()  # type: ignore[attr-defined]
    stage.errors = [AnswerLost("It died.")]
    stage.open()
    for events in streams:
        with pytest.raises(AnswerLost, match="It died"):
            await anext(events)
    assert len(inner.submitted) == 1
    await executor.aclose()


async def test_an_answer_is_generated_again_once() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    stage.errors = [AnswerLost("It died."), AnswerLost("It died.")]
    stage.open()
    with pytest.raises(AnswerLost, match="It died"):
        await (await executor.submit(ask())).completion()
    assert len(inner.submitted) == 2
    await executor.aclose()


async def test_a_refusal_is_delivered_to_all() -> None:
    inner = ScriptedExecutor(profile=ModelProfile(id="m", fingerprint="f", context_length=2))
    executor = CachingExecutor(inner, MemoryBackend(), settings())
    results = await asyncio.gather(*(executor.submit(ask()) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ContextLengthExceeded] * 3
    await executor.aclose()


async def test_a_slow_reader_holds_nobody_back() -> None:
    stage = Stage()
    executor, _ = stage.executor()
    slow, quick = await executor.submit(ask()), await executor.submit(ask())
    stage.open()
    slow_events = slow.events()
    assert await read_one(slow_events) == "word0 "
    assert await read(quick) == WHOLE
    assert (await executor.submit(ask())).outcome == "hit"
    assert await read_one(slow_events) == "word1 "
    await slow.aclose()
    await executor.aclose()


async def test_different_requests_do_not_join() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    answers = [await executor.submit(ask(text)) for text in ("a", "b")]
    stage.open()
    for answer in answers:
        await read(answer)
    assert len(inner.submitted) == 2
    await executor.aclose()


async def test_closing_fails_what_runs() -> None:
    stage = Stage()
    executor, inner = stage.executor()
    answer = await executor.submit(ask())
    waiting = asyncio.create_task(answer.completion())
    await stage.begun.wait()
    await executor.aclose()
    with pytest.raises(ShuttingDown):
        await waiting
    assert inner.running == 0


async def test_a_generation_that_just_stops_is_an_error() -> None:
    class Silent(ScriptedExecutor):
        async def play(self, request: GenerationRequest, prompt_tokens: int) -> AsyncGenerator[Event, None]:
            yield TextDelta(0, "begun")

    executor = CachingExecutor(Silent(), MemoryBackend(), settings())
    answer = await executor.submit(ask())
    with pytest.raises(ServiceError, match="stopped before its end"):
        await answer.completion()
    assert (await executor.statistics()).cached_items == 0
    await executor.aclose()


async def test_a_generation_that_does_not_close_has_been_answered() -> None:
    class BadlyClosing(ScriptedExecutor):
        async def submit(self, request: GenerationRequest) -> Answer:
            answer = await super().submit(request)

            class Badly:
                prompt_tokens, events = answer.prompt_tokens, answer.events

                async def aclose(self) -> None:
                    raise RuntimeError("it does not close")

            return Badly()

    executor = CachingExecutor(BadlyClosing(), MemoryBackend(), settings())
    assert await read(await executor.submit(ask("a b"))) == "a b"
    assert (await executor.submit(ask("a b"))).outcome == "hit"
    await executor.aclose()


async def test_a_running_answer_is_not_stored_yet() -> None:
    stage = Stage()
    executor, _ = stage.executor()
    answers = [await executor.submit(ask()), await executor.submit(ask())]
    assert [(answer.stored, answer.prompt_tokens) for answer in answers] == [(False, 3)] * 2
    for answer in answers:
        await answer.aclose()
    await executor.aclose()


async def test_a_whole_answer_waits_a_moment_for_the_outcome_of_its_write() -> None:
    class Refusing(MemoryBackend):
        async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raise CacheUnavailable("no room")

    executor = CachingExecutor(ScriptedExecutor(), Refusing(), settings())
    answer = await executor.submit(ask())
    await answer.completion()
    assert not answer.stored
    await executor.aclose()


async def one_delta(flight: Flight) -> AsyncGenerator[Event, None]:
    flight.accept(2)
    yield TextDelta(0, "a")
    yield ChoiceFinished(0, "stop")
    yield Done(Usage(prompt_tokens=2, completion_tokens=1))


async def test_a_flight_that_is_over_cannot_be_aborted() -> None:
    flights = Flights()
    flight = Flight(one_delta, lambda flight: None)
    flights.start(flight, ("model", "key"))
    reader = flight.join("miss")
    completion = await reader.completion()
    flight.abort(EngineFailed("too late"))
    assert (flight.completion, flight.error) == (completion, None)
    assert flights.find(("model", "key")) is None


async def test_closing_waits_until_a_generation_has_cleaned_up() -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def source(flight: Flight) -> AsyncGenerator[Event, None]:
        flight.accept(1)
        try:
            begun.set()
            await asyncio.Event().wait()
            yield TextDelta(0, "never")
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.set()

    flights = Flights()
    flights.start(Flight(source, lambda flight: None), None)
    await begun.wait()
    await flights.aclose(5)
    assert cleaned.is_set()


async def test_what_is_held_is_no_more_than_the_answer() -> None:
    """One copy of the events however many read, and nothing of the generation once its readers are gone."""
    stage = Stage()
    executor, _ = stage.executor()
    answers = [await executor.submit(ask()) for _ in range(5)]
    flights = {id(answer._flight) for answer in answers if isinstance(answer, FlightAnswer)}
    assert len(flights) == 1
    flight = weakref.ref(answers[0]._flight)  # type: ignore[attr-defined]
    stage.open()
    for answer in answers:
        await read(answer)
    await executor.aclose()
    answers.clear()
    del answer
    gc.collect()
    assert flight() is None
