"""Guesses for models with recurrent layers or sliding windows: the same tokens, however the guesses fare."""

from collections.abc import Callable
from typing import Any

import pytest

from service.executor.loading.cache_kinds import can_take_back, can_undo
from service.executor.speculation.drafter import Drafter
from service.executor.speculation.drafters import Drafters
from service.generation import SamplingParams
from tests.executor.models.tiny import make_tiny
from tests.executor.speculation.bench import NO_DRAFTS, Bench, Untimed

FAMILIES = ["mamba2", "qwen3_next", "falcon_h1", "gpt_oss", "gemma3_text", "cohere2"]
PROMPT = [(11 * i + 3) % 190 for i in range(40)]
TOKENS = 48
NO_END = 511


class Oracle:
    """Guesses `answer`, but each token at a multiple of `wrong_every` is wrong."""

    def __init__(self, answer: list[int], wrong_every: int) -> None:
        self._answer = answer
        self._wrong_every = wrong_every
        self._place = 0

    def can_draft(self) -> bool:
        rests = self._wrong_every == 1 and self._place % 8 > 1
        return self._place < len(self._answer) and not rests

    def basis(self) -> int:
        return 0

    def draft(self, at_most: int) -> list[int]:
        end = min(len(self._answer), self._place + at_most)
        return [self._guess(place) for place in range(self._place, end)]

    def follow(self, tokens: list[int]) -> None:
        self._place += len(tokens)

    def _guess(self, place: int) -> int:
        return self._answer[place] ^ (place % self._wrong_every == 0)


class OracleDrafters(Drafters):
    def __init__(self, answer: list[int], wrong_every: int) -> None:
        super().__init__(lookup=True)
        self.experience.times = Untimed()
        self._answer, self._wrong_every = answer, wrong_every

    def choose(
        self, caller: str, tokens: list[int], forced: Callable[[], list[int]] | None, *, with_model: bool
    ) -> list[Drafter]:
        return [Oracle(self._answer, self._wrong_every)]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return make_tiny(request.param)


def answer(model: Any, drafters: Drafters, *, shares: bool = False, **fields: Any) -> list[int]:
    return Bench(model, drafters, end=NO_END, shares=shares).run(PROMPT, max_tokens=TOKENS, **fields)


@pytest.fixture(scope="module")
def plain(model: Any) -> list[int]:
    return answer(model, NO_DRAFTS)


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(temperature=0.7, seed=4)])
@pytest.mark.parametrize("wrong_every", [1000, 3, 1])
def test_the_same_tokens_however_often_a_guess_is_wrong(model: Any, wrong_every: int, sampling: SamplingParams) -> None:
    assert can_undo(model)
    assert not can_take_back(model)
    drawn = answer(model, NO_DRAFTS, sampling=sampling)
    drafters = OracleDrafters(drawn, wrong_every)
    assert answer(model, drafters, sampling=sampling) == drawn
    assert drafters.experience.tally.drafted > 0
    if wrong_every > 2:
        assert drafters.experience.tally.accepted >= TOKENS // 3


@pytest.mark.parametrize("wrong_every", [4, 1])  # with 1, it rests, and computes each token ahead
@pytest.mark.parametrize("after", [2, 6, 9, 13])
def test_joined_by_another_it_goes_on_in_the_batch(model: Any, plain: list[int], after: int, wrong_every: int) -> None:
    bench = Bench(model, OracleDrafters(plain, wrong_every), end=NO_END)
    first = bench.start(PROMPT, max_tokens=TOKENS)
    bench.step_until(first, after)
    second = bench.start(PROMPT, max_tokens=TOKENS)
    assert bench.finish(first, second) == [plain, plain]


def test_what_was_read_is_in_the_prefix_cache(model: Any, plain: list[int]) -> None:
    bench = Bench(model, OracleDrafters(plain, 3), end=NO_END, shares=True)
    for _ in range(2):
        assert bench.run(PROMPT, max_tokens=TOKENS) == plain
    use = bench.ends[1].prompt_use
    assert use is not None
    assert use.cached_tokens == len(PROMPT) - 1
