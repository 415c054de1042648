"""The server ends reasoning in the real engine: the same tokens as a model that had written the marker itself."""

from queue import SimpleQueue
from typing import Any

import msgspec
import pytest

from service.events import ReasoningDelta, TextDelta
from service.executor.engine.batch_engine import BatchEngine
from service.executor.engine.chunks import ChunkSizes
from service.executor.loading.batching import Batching
from service.executor.loading.cache_kinds import can_undo
from service.executor.output.choice_writer import ChoiceWriter, Watches
from service.executor.output.reasoning import ReasoningSplitter
from service.executor.output.reasoning_guard import ReasoningGuard
from service.executor.prefix.cache import NoPrefixCache, PrefixCache
from service.executor.prefix.state import PromptStates
from service.executor.scheduling.messages import (
    Command,
    Delivery,
    Finished,
    Progress,
    Prompt,
    ReasoningForm,
    Sequence,
    Submit,
)
from service.executor.scheduling.places import Places
from service.executor.scheduling.scheduler import Scheduler
from service.executor.speculation.drafters import Drafters
from service.generation import SamplingParams
from service.tallies import CallTally
from service.tool_calling import StreamParser
from tests.executor.engines import sequence
from tests.executor.output.test_choice_writer import Letters
from tests.executor.prefix.test_engine import make_model
from tests.executor.speculation.bench import CHUNK, NO_DRAFTS
from tests.executor.speculation.bench import Bench as EngineBench

# Ids of this model are below 199. The markers consist of ids that it never draws here.
CLOSING = tuple(b"</think>")
FORM = ReasoningForm("<think>", "</think>", CLOSING, tuple(b"\n\n"))
PROMPT = [5, 6, 7] * 15
ANSWER = 40
END = 198


class Bench:
    """A scheduler over a real engine, whose tokens are bytes."""

    def __init__(self, model: Any, *, drafts: bool, keeps: bool, batching: Batching, end: int = END) -> None:
        self.tally = CallTally()
        self.drawn: dict[int, list[int]] = {}
        self.delivered: list[Delivery] = []
        self.inbox: SimpleQueue[Command] = SimpleQueue()
        engine = BatchEngine(
            model,
            {end},
            batching=batching,
            chunks=ChunkSizes(CHUNK),
            prefixes=PrefixCache(PromptStates(model), 10**9) if keeps else NoPrefixCache(),
            drafters=Drafters(lookup=drafts and can_undo(model)),
        )
        self.scheduler = Scheduler(
            engine,
            self.inbox,
            self.delivered.extend,
            self.open_writer,
            places=Places(batching.size),
            clock=lambda: 0.0,
        )

    def open_writer(self, sequence: Sequence) -> ChoiceWriter:
        drawn = self.drawn[sequence.id] = []

        class Noting(Letters):
            def add_token(self, token: int) -> None:
                drawn.append(token)
                super().add_token(token)

        guard = ReasoningGuard(
            FORM,
            lambda token: bytes([token]),
            self.tally,
            inside=True,
            budget=sequence.request.thinking_budget,
            retries=True,
        )
        splitter = ReasoningSplitter(FORM, inside=True)
        watches = Watches(reasoning=guard)
        return ChoiceWriter(0, Noting(), None, StreamParser(()), reasoning=splitter, watches=watches)

    def run(self, *budgets: int | None, **fields: Any) -> list[list[int]]:
        for number, budget in enumerate(budgets):
            started = sequence(number, max_tokens=ANSWER, thinking_budget=budget)
            prompt = Prompt([*PROMPT, *range(number)], in_reasoning=True, reasoning=FORM)
            self.inbox.put(Submit(msgspec.structs.replace(started, prompt=prompt, **fields)))
        self.scheduler.step()
        while self.scheduler.running or self.scheduler.waiting:
            self.scheduler.step()
        return [self.drawn[number] for number in range(len(budgets))]

    @property
    def finished(self) -> list[Finished]:
        return [each for each in self.delivered if isinstance(each, Finished)]

    def text(self, kind: type[TextDelta | ReasoningDelta], number: int = 0) -> str:
        events = [
            event
            for each in self.delivered
            if isinstance(each, Progress | Finished) and each.sequence == number
            for event in each.events
        ]
        return "".join(event.text for event in events if isinstance(event, kind))


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "mamba2"])
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


def continued(model: Any, budget: int, number: int = 0) -> list[int]:
    """What the model itself draws, before and behind the marker."""
    prompt = [*PROMPT, *range(number)]
    alone = EngineBench(model, NO_DRAFTS)
    thought = alone.run(prompt, max_tokens=budget)
    return [*thought, *CLOSING, *alone.run([*prompt, *thought, *CLOSING], max_tokens=ANSWER - budget - len(CLOSING))]


@pytest.mark.parametrize("budget", [1, 6, 11])
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("drafts", [False, True])
def test_the_marker_is_forced_at_the_budget(model: Any, drafts: bool, keeps: bool, budget: int) -> None:
    bench = Bench(model, drafts=drafts, keeps=keeps, batching=Batching(1, padded=False))
    (drawn,) = bench.run(budget)
    assert drawn == continued(model, budget)
    assert bench.tally.over_budget == 1
    (finished,) = bench.finished
    assert finished.completion_tokens == ANSWER
    assert finished.reasoning_tokens == budget + len(CLOSING)
    assert finished.prompt_use.cached_tokens == 0


def test_each_of_a_batch_has_its_own_budget(model: Any) -> None:
    bench = Bench(model, drafts=True, keeps=True, batching=Batching(3, padded=False))
    assert bench.run(3, None, 9) == [
        continued(model, 3),
        EngineBench(model, NO_DRAFTS).run([*PROMPT, 0], max_tokens=ANSWER),
        continued(model, 9, number=2),
    ]


def test_one_at_a_time(model: Any) -> None:
    bench = Bench(model, drafts=False, keeps=True, batching=Batching(1, possible=False))
    assert bench.run(4) == [continued(model, 4)]


def test_seeds_and_penalties_go_on(model: Any) -> None:
    sampling = SamplingParams(temperature=0.9, seed=5, presence_penalty=0.4, repetition_penalty=1.1)
    runs = [
        Bench(model, drafts=False, keeps=keeps, batching=Batching(2, padded=False)).run(5, sampling=sampling)
        for keeps in (True, False)
    ]
    assert runs[0] == runs[1]
    assert runs[0][0][5 : 5 + len(CLOSING)] == list(CLOSING)


def test_an_answer_of_nothing_but_reasoning_goes_on_behind_it(model: Any) -> None:
    thought = EngineBench(model, NO_DRAFTS).run(PROMPT, max_tokens=8)
    end = next(token for token in thought[1:] if token != thought[0])
    first = thought[: thought.index(end)]
    bench = Bench(model, drafts=True, keeps=True, batching=Batching(1, padded=False), end=end)
    (drawn,) = bench.run(None)
    begun = [*first, *FORM.closing, *FORM.answer]
    assert drawn[: len(begun)] == begun
    rest = EngineBench(model, NO_DRAFTS, end=end).run([*PROMPT, *begun], max_tokens=ANSWER - len(begun) - 1)
    assert drawn[len(begun) :] == [token for token in rest if token != end]
    assert bench.tally.unanswered == 1


def test_a_second_attempt_needs_room(model: Any) -> None:
    thought = EngineBench(model, NO_DRAFTS).run(PROMPT, max_tokens=8)
    end = next(token for token in thought[1:] if token != thought[0])
    place = thought.index(end)
    bench = Bench(model, drafts=False, keeps=True, batching=Batching(1, padded=False), end=end)
    (drawn,) = bench.run(None, max_tokens=place + 5)
    assert drawn == thought[:place]
    (finished,) = bench.finished
    assert finished.completion_tokens == place + 1
