"""The executor around a deterministic engine: everything but the model."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.device.memory import LEAST_CONTEXT_TOKENS
from service.errors import (
    BadRequest,
    ContextLengthExceeded,
    EngineFailed,
    GenerationTimeout,
    NotReady,
    Overloaded,
    ShuttingDown,
)
from service.events import ChoiceFinished, Done
from service.executor.base import Answer, collect
from service.executor.mlx_executor import TOGETHER_SECONDS, MlxExecutor
from service.executor.runtime import Loader
from service.executor.scheduling.messages import Prompt
from service.generation import Completion, GenerationRequest, SamplingParams, Usage
from service.profile import ModelProfile
from service.settings import Settings
from tests.executor.engines import CountingEngine, WordRenderer, counting_loader, failing_at, question, until
from tests.no_home import NO_HOME
from tests.patience import PATIENCE_SECONDS

PROFILE = ModelProfile(id="counting", fingerprint="1", context_length=1000)


@asynccontextmanager
async def running(
    load: Loader, together_seconds: float = TOGETHER_SECONDS, profile: ModelProfile = PROFILE, **settings: Any
) -> AsyncIterator[MlxExecutor]:
    configured = Settings(home=NO_HOME, shutdown_grace_seconds=5.0, **settings)
    executor = MlxExecutor(Path("counting"), profile, configured, load=load, together_seconds=together_seconds)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.aclose()


class Gate:
    """Holds the MLX thread at each step until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, step: int) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_SECONDS)


async def test_answers() -> None:
    async with running(counting_loader(CountingEngine())) as executor:
        answer = await executor.submit(question("how many words", max_tokens=3))
        completion = await collect(answer.events())
    assert answer.prompt_tokens == 3
    assert completion.choices[0].text == "1 2 3 "
    assert completion.usage == Usage(prompt_tokens=3, completion_tokens=3)


async def test_every_choice_is_a_sequence_with_its_own_seed() -> None:
    gate = Gate()
    engine = CountingEngine(gate)
    async with running(counting_loader(engine), max_concurrency=4) as executor:
        request = question(max_tokens=2, n=3, sampling=SamplingParams(temperature=1.0, seed=5))
        answer = await executor.submit(request)
        await until(gate.reached.is_set)
        seeds = [sequence.sampling.seed for sequence in engine.held.values()]
        gate.open.set()
        completion = await collect(answer.events())
    assert seeds == [5, 6, 7]
    assert [choice.text for choice in completion.choices] == ["1 2 "] * 3
    assert completion.usage.completion_tokens == 6


async def test_without_max_tokens_the_rest_of_the_context_is_written() -> None:
    async with running(counting_loader(CountingEngine())) as executor:
        completion = await collect((await executor.submit(question("word " * 990))).events())
        clipped = await collect((await executor.submit(question("word " * 990, max_tokens=50))).events())
    assert completion.usage.completion_tokens == clipped.usage.completion_tokens == 10
    assert completion.choices[0].finish_reason == "length"


async def test_each_choice_ends_with_its_number_of_tokens() -> None:
    async with running(counting_loader(CountingEngine())) as executor:
        answer = await executor.submit(question("a b", max_tokens=3, n=2))
        ends = [event async for event in answer.events() if isinstance(event, ChoiceFinished)]
    assert ends == [ChoiceFinished(choice, "length", tokens=3) for choice in (0, 1)]


async def test_max_tokens_of_zero_reads_the_prompt_once_and_writes_nothing() -> None:
    engine = CountingEngine()
    async with running(counting_loader(engine)) as executor:
        completion = await collect((await executor.submit(question("a b", max_tokens=0, n=2))).events())
        answer = await executor.submit(question("a b", max_tokens=0))
        events = [event async for event in answer.events()]
    assert events == [ChoiceFinished(0, "length"), Done(Usage(prompt_tokens=2, completion_tokens=0))]
    assert (engine.prompt_tokens_read, engine.most) == (4, 1)
    assert [(c.parts, c.finish_reason) for c in completion.choices] == [((), "length")] * 2
    assert completion.usage == Usage(prompt_tokens=2, completion_tokens=0)


async def test_requests_wait_while_the_model_loads() -> None:
    loading = threading.Event()

    def load(*args: Any) -> Any:
        assert loading.wait(PATIENCE_SECONDS)
        return counting_loader(CountingEngine())(*args)

    async with running(load) as executor:
        assert executor.status().state == "loading"
        submitted = asyncio.ensure_future(executor.submit(question(max_tokens=1)))
        counted = asyncio.ensure_future(executor.count_tokens(question("a b c")))
        await asyncio.sleep(0)
        assert executor.status().waiting == 2
        loading.set()
        assert (await collect((await submitted).events())).choices[0].text == "1 "
        assert await counted == 3
        assert executor.status().state == "healthy"


async def test_a_model_that_cannot_be_loaded_says_why_to_everybody() -> None:
    def load(*args: Any) -> Any:
        raise ValueError("no weights here")

    async with running(load) as executor:
        for _ in range(2):
            with pytest.raises(NotReady, match="counting could not be loaded: no weights here"):
                await executor.submit(question())
        assert executor.status().state == "unhealthy"
        assert "no weights here" in executor.status().detail


async def test_a_model_that_loads_for_too_long_is_not_waited_for() -> None:
    loading = threading.Event()

    def load(*args: Any) -> Any:
        assert loading.wait(PATIENCE_SECONDS)
        raise ValueError("too late")

    async with running(load, queue_timeout_seconds=0.01) as executor:
        with pytest.raises(NotReady, match="still loading") as refused:
            await executor.submit(question())
        assert refused.value.retry_after
        loading.set()


async def test_a_full_queue_refuses_at_once() -> None:
    gate = Gate()
    async with running(counting_loader(CountingEngine(gate)), max_concurrency=1, max_queue=2) as executor:
        answers = [await executor.submit(question(max_tokens=2)) for _ in range(3)]
        await until(gate.reached.is_set)
        assert (executor.status().running, executor.status().waiting) == (1, 2)
        with pytest.raises(Overloaded) as refused:
            await executor.submit(question(max_tokens=2))
        assert refused.value.retry_after
        gate.open.set()
        texts = [(await collect(answer.events())).choices[0].text for answer in answers]
        assert texts == ["1 2 "] * 3
        assert (await collect((await executor.submit(question(max_tokens=1))).events())).choices[0].text == "1 "


async def test_many_at_once_are_answered_or_refused() -> None:
    async def ask(executor: MlxExecutor) -> Completion | Overloaded:
        try:
            return await collect((await executor.submit(question(max_tokens=5))).events())
        except Overloaded as exc:
            return exc

    async with running(counting_loader(CountingEngine()), max_concurrency=2, max_queue=8) as executor:
        outcomes = await asyncio.gather(*[ask(executor) for _ in range(200)])
        served = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
        assert len(served) >= 10
        assert {completion.choices[0].text for completion in served} == {"1 2 3 4 5 "}
        await until(lambda: executor.status().running == 0)


async def leave_events(answer: Any) -> None:
    async for _ in answer.events():
        return


async def close_only(answer: Any) -> None:
    await answer.aclose()


async def cancel_completion(answer: Any) -> None:
    task = asyncio.ensure_future(collect(answer.events()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def close_while_it_is_read(answer: Any) -> None:
    task = asyncio.ensure_future(collect(answer.events()))
    await asyncio.sleep(0)
    await answer.aclose()
    with pytest.raises(EngineFailed, match="closed"):
        await task


@pytest.mark.parametrize("leave", [close_only, cancel_completion, close_while_it_is_read])
async def test_a_reader_who_leaves_frees_the_place(leave: Callable[[Any], Any]) -> None:
    gate = Gate()
    engine = CountingEngine(gate)
    async with running(counting_loader(engine), max_concurrency=1) as executor:
        answer = await executor.submit(question(max_tokens=900, n=2))
        await until(gate.reached.is_set)
        await leave(answer)
        gate.open.set()
        other = await executor.submit(question(max_tokens=2))
        assert (await collect(other.events())).choices[0].text == "1 2 "
        assert not engine.held
        assert engine.steps < 20
        assert executor.status().waiting == 0


async def test_leaving_a_stream_frees_the_place() -> None:
    async with running(counting_loader(CountingEngine()), max_concurrency=1) as executor:
        answer = await executor.submit(question(max_tokens=900))
        async for _ in answer.events():
            break
        await answer.aclose()
        await until(lambda: executor.status().running == 0)


async def test_an_answer_that_takes_too_long_is_ended() -> None:
    gate = Gate()
    async with running(counting_loader(CountingEngine(gate)), request_timeout_seconds=0.01) as executor:
        answer = await executor.submit(question(max_tokens=900))
        with pytest.raises(GenerationTimeout):
            await collect(answer.events())
        gate.open.set()
        await until(lambda: executor.status().running == 0)


@pytest.mark.waits
async def test_the_time_in_the_queue_is_not_part_of_the_answers_time() -> None:
    gate = Gate()
    load = counting_loader(CountingEngine(gate))
    async with running(load, max_concurrency=1, request_timeout_seconds=2.0) as executor:
        first = await executor.submit(question(max_tokens=900))
        second = await executor.submit(question(max_tokens=2))
        with pytest.raises(GenerationTimeout):
            await collect(first.events())
        gate.open.set()
        assert (await collect(second.events())).choices[0].text == "1 2 "


async def test_what_the_engine_refuses_is_refused_before_there_is_an_answer() -> None:
    """So that a stream of it has the status of a refusal, also while the engine generates for another."""
    async with running(counting_loader(CountingEngine(memory=950)), max_concurrency=1) as executor:
        for streamed in (False, True):
            with pytest.raises(ContextLengthExceeded, match="maximum context length is 950 tokens"):
                await executor.submit(question("word " * 950, max_tokens=1, n=2 if streamed else 1))
        assert executor.status().context_length(executor.profile) == 950
        assert (executor.status().running, executor.status().waiting) == (0, 0)
        assert (await collect((await executor.submit(question(max_tokens=1))).events())).choices[0].text == "1 "


async def test_a_long_prompt_waits_if_other_programs_hold_all_memory() -> None:
    engine, words = CountingEngine(memory=0), 2 * LEAST_CONTEXT_TOKENS
    profile = msgspec.structs.replace(PROFILE, context_length=4 * words)
    async with running(counting_loader(engine), profile=profile) as executor:
        answer = await executor.submit(question("word " * words, max_tokens=1))
        assert executor.status().context_length(profile) == LEAST_CONTEXT_TOKENS
        engine.memory = profile.context_length
        assert (await collect(answer.events())).usage.prompt_tokens == words


async def test_a_client_that_leaves_before_its_answer_has_begun_frees_its_place() -> None:
    gate = Gate()
    async with running(counting_loader(CountingEngine(gate)), max_concurrency=1) as executor:
        first = await executor.submit(question(max_tokens=1))
        waiting = asyncio.ensure_future(executor.submit(question(max_tokens=1)))
        await until(lambda: executor.status().waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.open.set()
        assert (await collect(first.events())).choices[0].text == "1 "
        await until(lambda: executor.status().running == executor.status().waiting == 0)


async def test_what_is_being_rendered_waits_already() -> None:
    rendering = threading.Event()
    loader = counting_loader(CountingEngine(), WordRenderer(lambda: assert_soon(rendering)))
    async with running(loader) as executor:
        submitted = asyncio.ensure_future(executor.submit(question(max_tokens=1)))
        await until(lambda: executor.status().state == "healthy" and executor.status().waiting == 1)
        rendering.set()
        assert (await collect((await submitted).events())).choices[0].text == "1 "
        await until(lambda: executor.status().waiting == 0)


class HeldRenderer(WordRenderer):
    """Renders a prompt of more than one word when it is `open`."""

    def __init__(self) -> None:
        super().__init__()
        self.rendering, self.open = threading.Event(), threading.Event()
        self.rendered = 0

    def render(self, request: GenerationRequest) -> Prompt:
        if self.count(request) > 1:
            self.rendering.set()
            assert_soon(self.open)
        self.rendered += 1
        return super().render(request)


async def assert_begin_together(
    both: list[asyncio.Task[Answer]], executor: MlxExecutor, renderer: HeldRenderer, gate: Gate
) -> None:
    assert not await asyncio.to_thread(gate.reached.wait, 0.1), "the first has begun alone"
    renderer.open.set()
    await until(gate.reached.is_set)
    assert executor.status().running == 2
    gate.open.set()
    for answer in both:
        assert (await collect((await answer).events())).choices[0].finish_reason == "length"


async def test_requests_that_come_together_begin_together() -> None:
    renderer, gate = HeldRenderer(), Gate()
    async with running(counting_loader(CountingEngine(gate), renderer), together_seconds=10.0) as executor:
        both = [asyncio.ensure_future(executor.submit(question(words))) for words in ("one", "two words")]
        await until(renderer.rendering.is_set)
        assert renderer.rendered == 1
        await assert_begin_together(both, executor, renderer, gate)


class CountedRenderer(HeldRenderer):
    """Sets `counted` at a prompt of three words."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = threading.Event()

    def count(self, request: GenerationRequest) -> int:
        words = super().count(request)
        if words == 3:
            self.counted.set()
        return words


async def test_a_request_that_arrives_when_another_is_rendered_begins_with_it() -> None:
    renderer, gate = CountedRenderer(), Gate()
    async with running(counting_loader(CountingEngine(gate), renderer), together_seconds=10.0) as executor:
        await until(lambda: executor.status().state == "healthy")
        both = [asyncio.ensure_future(executor.submit(question("one")))]
        counting = asyncio.ensure_future(executor.count_tokens(question("one two three")))
        await asyncio.sleep(0)
        assert_soon(renderer.counted)  # holds the loop: the first prompt is rendered, and its task has not seen it
        submit = executor.submit(question("two words"))
        asyncio.get_running_loop().call_soon(lambda: both.append(asyncio.ensure_future(submit)))
        await until(renderer.rendering.is_set)
        await assert_begin_together(both, executor, renderer, gate)
        assert await counting == 3


class SlowRenderer(WordRenderer):
    def render(self, request: GenerationRequest) -> Prompt:
        time.sleep(0.1)
        return super().render(request)


async def test_requests_that_take_alike_to_render_begin_together() -> None:
    gate = Gate()
    loader = counting_loader(CountingEngine(gate), SlowRenderer())
    async with running(loader, together_seconds=0.0, max_concurrency=4) as executor:
        answers = [asyncio.ensure_future(executor.submit(question(words, max_tokens=1))) for words in "abcd"]
        await until(gate.reached.is_set)
        assert executor.status().running == 4
        gate.open.set()
        for answer in answers:
            assert (await collect((await answer).events())).choices[0].text == "1 "


async def test_who_takes_long_to_render_is_not_waited_for() -> None:
    renderer = HeldRenderer()
    async with running(counting_loader(CountingEngine(), renderer)) as executor:
        first, second = (
            asyncio.ensure_future(executor.submit(question(words, max_tokens=1))) for words in ("one", "two words")
        )
        assert (await collect((await first).events())).choices[0].text == "1 "
        await until(renderer.rendering.is_set)
        assert not second.done()
        renderer.open.set()
        assert (await collect((await second).events())).choices[0].text == "1 "


def assert_soon(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


async def test_an_engine_failure_is_told_and_the_next_request_works() -> None:
    async with running(counting_loader(CountingEngine(failing_at(3)))) as executor:
        answer = await executor.submit(question(max_tokens=5))
        with pytest.raises(EngineFailed):
            await collect(answer.events())
        assert (await collect((await executor.submit(question(max_tokens=1))).events())).choices[0].text == "1 "
        assert executor.status().engine_restarts == 1


async def test_closing_fails_what_runs_and_what_comes() -> None:
    gate, others = Gate(), set(threading.enumerate())
    engine = CountingEngine(gate)
    async with running(counting_loader(engine), max_concurrency=1) as executor:
        answers = [await executor.submit(question(max_tokens=900)) for _ in range(2)]
        await until(gate.reached.is_set)
        closing = asyncio.create_task(executor.aclose())
        await asyncio.sleep(0)  # it waits for the thread now, which finds it when the step ends
        gate.open.set()
        await closing
        for answer in answers:
            with pytest.raises(ShuttingDown):
                await collect(answer.events())
        with pytest.raises(ShuttingDown):
            await executor.submit(question())
        assert engine.closed
        assert "mlx" not in {thread.name for thread in set(threading.enumerate()) - others}


async def test_what_the_renderer_refuses_takes_no_place() -> None:
    def refuse() -> None:
        raise ContextLengthExceeded(2000, 1000)

    loader = counting_loader(CountingEngine(), WordRenderer(refuse))
    async with running(loader, max_concurrency=1, max_queue=0) as executor:
        for _ in range(3):
            with pytest.raises(ContextLengthExceeded):
                await executor.submit(question())


@pytest.mark.parametrize("token", [-1, 100])
async def test_a_bias_on_a_token_that_does_not_exist_is_refused(token: int) -> None:
    async with running(counting_loader(CountingEngine())) as executor:
        with pytest.raises(BadRequest, match="0 to 99") as refused:
            await executor.submit(question(sampling=SamplingParams(logit_bias=((token, 1.0),))))
        assert refused.value.param == "logit_bias"
