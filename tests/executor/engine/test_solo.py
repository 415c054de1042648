"""The engine with drafters, on tiny random models: the same tokens as without, in fewer steps."""

import itertools
from typing import Any

import mlx.core as mx
import pytest

from service.executor.engine.batch_engine import READ_AND_DRAWN, STEPS_ALONE
from service.executor.loading.cache_kinds import can_take_back
from service.executor.scheduling.messages import PromptUse
from service.executor.speculation.draft_model import DraftModel
from service.executor.speculation.drafter import FIRST_DRAFTED
from service.executor.speculation.drafters import Drafters
from service.executor.speculation.experience import PASSED_OVER
from service.generation import SamplingParams
from tests.executor.engines import sequence
from tests.executor.prefix.test_engine import CONFIGS, make_model
from tests.executor.speculation.bench import CHUNK, NO_DRAFTS, Bench, Untimed

VOCABULARY = 199
NO_END = 511
WORDS = [(7 * i) % 190 for i in range(45)]
PROMPTS = {
    "one token": [3],
    "two tokens": [3, 4],
    "no repetition": [(11 * i + 3) % 190 for i in range(21)],
    "the same again": WORDS + WORDS + WORDS[:20],
    "a loop": [5, 6, 7] * 15,
    "longer than a chunk": [(i * i) % 190 for i in range(90)],
}


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("llama")


@pytest.fixture(scope="module")
def stranger() -> Any:
    """Another model of the same vocabulary, which is hardly ever right."""
    other = make_model("llama")
    mx.random.seed(8)
    other.apply(lambda weights: mx.random.normal(weights.shape) / 8)
    mx.eval(other.parameters())
    return other


def of(kind: str, model: Any, stranger: Any) -> Drafters:
    models = {"model": model, "stranger": stranger}
    names = kind.split(" and ")
    drafts = [DraftModel(models[name], logits=VOCABULARY, chunk_tokens=CHUNK) for name in names if name in models]
    return Drafters(lookup="lookup" in names, draft=drafts[0] if drafts else None)


KINDS = ["lookup", "model", "stranger", "lookup and stranger"]


@pytest.fixture(params=KINDS)
def drafters(request: pytest.FixtureRequest, model: Any, stranger: Any) -> Drafters:
    return of(request.param, model, stranger)


@pytest.fixture(scope="module")
def plain(model: Any) -> dict[str, list[int]]:
    bench = Bench(model, NO_DRAFTS)
    return {name: bench.run(prompt) for name, prompt in PROMPTS.items()}


def test_the_same_tokens_as_without(model: Any, drafters: Drafters, plain: dict[str, list[int]]) -> None:
    bench = Bench(model, drafters)
    for _ in range(2):
        assert {name: bench.run(prompt) for name, prompt in PROMPTS.items()} == plain
    assert 0 <= drafters.experience.tally.accepted <= drafters.experience.tally.drafted
    assert drafters.experience.tally.drafted > 0


def test_a_model_that_is_always_right_saves_most_steps(model: Any, stranger: Any) -> None:
    drafters = of("model", model, stranger)
    bench = Bench(model, drafters, timed=False)
    bench.run(PROMPTS["one token"])
    assert bench.steps < 10
    assert drafters.experience.tally.accepted == drafters.experience.tally.drafted


def test_lookup_saves_steps_where_the_answer_repeats_itself(model: Any, stranger: Any) -> None:
    drafters = of("lookup", model, stranger)
    bench = Bench(model, drafters, timed=False)
    tokens = bench.run(PROMPTS["a loop"], max_tokens=200)
    assert tokens == Bench(model, NO_DRAFTS).run(PROMPTS["a loop"], max_tokens=200)
    assert drafters.experience.tally.accepted > 50
    assert bench.steps < 200 - drafters.experience.tally.accepted + 10


class NeverPays(Untimed):
    def useful_guess(self, kind: str, most: int, right: float, *, untimed: int | None = None) -> int:
        return 0


@pytest.mark.parametrize("prompt", ["two tokens", "longer than a chunk"])
def test_a_drafter_that_does_not_pay_is_tried_again(model: Any, stranger: Any, prompt: str) -> None:
    drafters = of("stranger", model, stranger)
    drafters.experience.times = NeverPays()
    bench = Bench(model, drafters, end=NO_END)
    tokens = bench.run(PROMPTS[prompt], max_tokens=3 * PASSED_OVER + 20)
    assert 2 <= drafters.experience.tally.drafted <= 3 * FIRST_DRAFTED
    assert tokens == Bench(model, NO_DRAFTS, end=NO_END).run(PROMPTS[prompt], max_tokens=3 * PASSED_OVER + 20)


def test_what_a_guess_has_behind_the_end_of_an_answer_is_not_judged(model: Any, stranger: Any) -> None:
    drafters = of("model", model, stranger)
    for _ in range(20):
        Bench(model, drafters, timed=False).run(PROMPTS["one token"], max_tokens=3)
    experience = drafters.experience
    assert experience.tally.accepted > 0
    assert experience.length("DraftModel", 0, 16, untimed=16) == 16
    assert experience.share("DraftModel", 0) > 0.9


class Counted:
    """A model that knows how many tokens it was given, a number for each time."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.lengths: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, inputs: mx.array, **fields: Any) -> mx.array:
        self.lengths.append(inputs.shape[1])
        logits: mx.array = self._model(inputs, **fields)
        return logits


@pytest.mark.parametrize(("words", "readings"), [(1, [1]), (READ_AND_DRAWN, [READ_AND_DRAWN]), (33, [32, 1])])
def test_nothing_more_is_computed_for_the_first_token_than_it_needs(
    model: Any, stranger: Any, words: int, readings: list[int]
) -> None:
    counted = Counted(model)
    bench = Bench(counted, of("lookup", model, stranger), chunk=64)
    counted.lengths.clear()
    number = bench.start([(11 * i + 3) % 190 for i in range(words)])
    bench.step_until(number, 1)
    assert counted.lengths == readings


@pytest.mark.parametrize("max_tokens", range(1, 14))
def test_max_tokens_hold_inside_of_a_draft(
    model: Any, drafters: Drafters, plain: dict[str, list[int]], max_tokens: int
) -> None:
    bench = Bench(model, drafters)
    for name, prompt in PROMPTS.items():
        number = bench.start(prompt, max_tokens=max_tokens)
        assert bench.finish(number) == [plain[name][:max_tokens]]
        assert bench.ends[number].end == "length"


@pytest.mark.parametrize("position", [0, 1, 5, 11])
def test_an_end_token_ends_it_inside_of_a_draft(
    model: Any, drafters: Drafters, plain: dict[str, list[int]], position: int
) -> None:
    answer = plain["no repetition"]
    end = answer[position]
    bench = Bench(model, drafters, end=end)
    for _ in range(2):
        number = bench.start(PROMPTS["no repetition"])
        assert bench.finish(number) == [answer[: answer.index(end) + 1]]
        assert bench.ends[number].end == "stop"


@pytest.mark.parametrize("after", [1, 2, 7, 20])
def test_joined_by_another_it_goes_on_in_the_batch(
    model: Any, drafters: Drafters, plain: dict[str, list[int]], after: int
) -> None:
    names = ("no repetition", "the same again", "longer than a chunk", "two tokens")
    for name, other in itertools.pairwise((*names, names[0])):
        bench = Bench(model, drafters)
        first = bench.start(PROMPTS[name])
        bench.step_until(first, after)
        second = bench.start(PROMPTS[other])
        assert bench.finish(first, second) == [plain[name], plain[other]]


def test_left_alone_again_it_guesses_again(model: Any, stranger: Any, plain: dict[str, list[int]]) -> None:
    drafters = of("model", model, stranger)
    bench = Bench(model, drafters, timed=False)
    first, second = bench.start(PROMPTS["no repetition"]), bench.start(PROMPTS["two tokens"], max_tokens=4)
    bench.finish(second)
    assert drafters.experience.tally.drafted == 0
    bench.step_until(first, len(bench.tokens[first]) + STEPS_ALONE)
    bench.step()
    assert drafters.experience.tally.accepted > 0
    third = bench.start(PROMPTS["one token"])
    assert bench.finish(first, third) == [plain["no repetition"], plain["one token"]]


def test_many_come_and_go(model: Any, drafters: Drafters) -> None:
    prompts = [list(PROMPTS.values())[i % len(PROMPTS)] for i in range(12)]
    lengths = [3 + 5 * i % 23 for i in range(12)]
    alone = Bench(model, NO_DRAFTS)
    expected = [alone.run(prompt, max_tokens=n) for prompt, n in zip(prompts, lengths, strict=True)]
    bench = Bench(model, drafters)
    for prompt, length in zip(prompts, lengths, strict=True):
        number = bench.start(prompt, max_tokens=length)
        bench.step_until(number, min(2 + 3 * number % 7, length))
    assert bench.finish(*range(12)) == expected


@pytest.mark.parametrize("after", [0, 1, 2, 6])
def test_aborted_it_is_gone_and_the_next_one_is_right(
    model: Any, drafters: Drafters, plain: dict[str, list[int]], after: int
) -> None:
    bench = Bench(model, drafters, shares=True)
    prompt = PROMPTS["longer than a chunk"]
    first = bench.start(prompt)
    bench.step_until(first, after)
    bench.engine.remove(first)
    assert bench.engine.step() == []
    assert bench.run(prompt) == plain["longer than a chunk"]
    assert bench.run(PROMPTS["a loop"]) == plain["a loop"]


def test_what_was_read_is_in_the_prefix_cache(model: Any, drafters: Drafters) -> None:
    bench = Bench(model, drafters, shares=True)
    prompt = PROMPTS["longer than a chunk"]
    first = bench.start(prompt)
    answer = bench.finish(first)[0]
    assert bench.ends[first].prompt_use == PromptUse(0, len(prompt))
    turn = [*prompt, *answer, 1, 2, 3]
    second = bench.start(turn)
    tokens = bench.finish(second)[0]
    use = bench.ends[second].prompt_use
    assert use is not None
    assert len(prompt) + len(answer) - 2 <= use.cached_tokens <= len(prompt) + len(answer)
    assert tokens == Bench(model, NO_DRAFTS).run(turn)


CHANGED = {
    "repetition penalty": SamplingParams(repetition_penalty=1.3),
    "other penalties": SamplingParams(presence_penalty=0.7, frequency_penalty=0.4),
    "bias": SamplingParams(logit_bias=((7, 3.0), (11, -2.0))),
    "all of them": SamplingParams(
        temperature=0.7, seed=5, repetition_penalty=1.1, frequency_penalty=0.2, logit_bias=((7, 2.0),)
    ),
}


@pytest.mark.parametrize("sampling", CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("kind", ["lookup", "model"])
def test_changed_logits_follow_the_guesses(model: Any, stranger: Any, kind: str, sampling: SamplingParams) -> None:
    drafters, plain = of(kind, model, stranger), Bench(model, NO_DRAFTS)
    bench = Bench(model, drafters, timed=False)
    for prompt in PROMPTS.values():
        assert bench.run(prompt, sampling=sampling) == plain.run(prompt, sampling=sampling)
    assert drafters.experience.tally.drafted > 0


def test_nothing_is_guessed_where_logprobs_are_shown(model: Any, stranger: Any) -> None:
    drafters, fields = of("model", model, stranger), {"request": sequence(0, logprobs=2).request}
    tokens = Bench(model, drafters).run(PROMPTS["a loop"], **fields)
    assert drafters.experience.tally.drafted == 0
    assert tokens == Bench(model, NO_DRAFTS).run(PROMPTS["a loop"], **fields)


DRAWN = {
    "nearly greedy": SamplingParams(temperature=0.1, seed=1),
    "usual": SamplingParams(temperature=0.7, top_p=0.9, seed=2),
    "few candidates": SamplingParams(temperature=1.0, top_k=3, seed=3),
    "hot": SamplingParams(temperature=2.0, seed=4),
}


@pytest.fixture(scope="module")
def drawn(model: Any) -> dict[str, list[list[int]]]:
    bench = Bench(model, NO_DRAFTS)
    return {
        name: [bench.run(prompt, sampling=sampling) for prompt in PROMPTS.values()] for name, sampling in DRAWN.items()
    }


@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_draws_the_same_tokens_with_guesses(
    model: Any, drafters: Drafters, drawn: dict[str, list[list[int]]], name: str
) -> None:
    bench = Bench(model, drafters)
    assert [bench.run(prompt, sampling=DRAWN[name]) for prompt in PROMPTS.values()] == drawn[name]
    assert drafters.experience.tally.drafted > 0


def test_a_seed_draws_the_same_tokens_when_another_comes_and_goes(model: Any, stranger: Any) -> None:
    sampling = SamplingParams(temperature=0.9, seed=6)
    alone = Bench(model, NO_DRAFTS).run(PROMPTS["a loop"], sampling=sampling)
    bench = Bench(model, of("model", model, stranger))
    first = bench.start(PROMPTS["a loop"], sampling=sampling)
    bench.step_until(first, 5)
    bench.run(PROMPTS["two tokens"], max_tokens=8)
    assert bench.finish(first) == [alone]


def test_top_k_of_one_is_greedy(model: Any, stranger: Any, plain: dict[str, list[int]]) -> None:
    drafters = of("model", model, stranger)
    sampling = SamplingParams(temperature=0.8, top_k=1)
    assert Bench(model, drafters).run(PROMPTS["a loop"], sampling=sampling) == plain["a loop"]
    assert drafters.experience.tally.drafted > 0


def test_after_a_failure_in_the_middle_it_starts_over(model: Any, plain: dict[str, list[int]]) -> None:
    """A call of the model that raises, at any of its calls, leaves nothing behind that shows."""
    for at in range(1, 16, 2):
        broken = Breakable(model)
        bench = Bench(broken, Drafters(lookup=True, draft=DraftModel(model, logits=VOCABULARY, chunk_tokens=CHUNK)))
        broken.calls_left = at
        number = bench.start(PROMPTS["the same again"])
        with pytest.raises(RuntimeError, match="injected"):
            bench.finish(number)
        bench.engine.reset()
        assert bench.run(PROMPTS["the same again"]) == plain["the same again"]


def test_a_draft_model_that_fails_costs_no_answer(model: Any, plain: dict[str, list[int]]) -> None:
    broken = Breakable(model)
    drafters = Drafters(lookup=False, draft=DraftModel(broken, logits=VOCABULARY, chunk_tokens=CHUNK))
    bench = Bench(model, drafters, timed=False)
    broken.calls_left = 4
    assert bench.run(PROMPTS["two tokens"]) == plain["two tokens"]
    assert drafters.experience.tally.drafted < len(plain["two tokens"])
    assert bench.run(PROMPTS["no repetition"]) == plain["no repetition"]
    assert drafters.experience.tally.accepted == drafters.experience.tally.drafted > len(plain["no repetition"]) / 2


class Breakable:
    """A model that raises once, after so many calls, when it has read already."""

    def __init__(self, model: Any) -> None:
        self.calls_left: int | None = None
        self._model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        logits = self._model(*args, **kwargs)
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self.calls_left = None
                raise RuntimeError("injected")
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.parametrize("kind", CONFIGS)
def test_only_plain_transformers_can_take_back(kind: str) -> None:
    assert can_take_back(make_model(kind)) is (kind == "llama")


def test_the_draft_models_state_is_counted_and_gives_way(model: Any, stranger: Any) -> None:
    drafters = of("stranger", model, stranger)
    bench = Bench(model, drafters)
    bench.run(PROMPTS["a loop"])
    assert drafters.nbytes > 0
    assert drafters.bytes_for(1000) > drafters.bytes_for(10)
    drafters.forget()
    assert drafters.nbytes == 0
    assert bench.run(PROMPTS["a loop"]) == Bench(model, NO_DRAFTS).run(PROMPTS["a loop"])


def test_state_that_gave_way_in_the_middle_is_read_again_for_the_next_answer(
    model: Any, stranger: Any, plain: dict[str, list[int]]
) -> None:
    drafters = of("model", model, stranger)
    bench = Bench(model, drafters, timed=False)
    number = bench.start(PROMPTS["longer than a chunk"])
    bench.step_until(number, 3)
    drafters.forget()
    accepted = drafters.experience.tally.accepted
    assert bench.finish(number) == [plain["longer than a chunk"]]
    assert (drafters.experience.tally.accepted, drafters.nbytes) == (accepted, 0)
    assert bench.run(PROMPTS["longer than a chunk"]) == plain["longer than a chunk"]
    assert drafters.experience.tally.accepted > accepted
