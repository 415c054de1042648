import itertools
import math

import mlx.core as mx
import numpy as np
import pytest

from service.executor.engine.batch import token_chances
from service.executor.engine.sampling import greedy, keep_likely, make_logits_processors, make_sampler
from service.generation import SamplingParams


def logprobs(*probabilities: float) -> mx.array:
    return mx.log(mx.array([probabilities]))


def kept(params: SamplingParams, *probabilities: float) -> list[int]:
    row = np.asarray(keep_likely(logprobs(*probabilities), params))[0]
    return [i for i, value in enumerate(row) if value > -math.inf]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [1]),
        ({"top_p": 0.51}, [1, 3]),
        ({"top_p": 0.75}, [1, 3]),
        ({"top_p": 0.0}, [1]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 4}, [0, 1, 2, 3]),
        ({"top_k": 99}, [0, 1, 2, 3]),
        ({"min_p": 0.4}, [1, 3]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 3, "top_p": 0.8}, [1, 2, 3]),
        ({"top_k": 2, "top_p": 0.9, "min_p": 0.01}, [1, 3]),
    ],
)
def test_only_likely_tokens_are_kept(params: dict[str, float], expected: list[int]) -> None:
    assert kept(SamplingParams(**params), 0.08, 0.5, 0.17, 0.25) == expected


def test_all_greedy_sequences_share_one_sampler() -> None:
    assert make_sampler(SamplingParams()) is make_sampler(SamplingParams(temperature=1e-9, seed=3)) is greedy
    assert greedy(logprobs(0.1, 0.7, 0.2)).tolist() == [1]


def draws(params: SamplingParams, count: int = 40) -> list[int]:
    sampler = make_sampler(params)
    return [int(sampler(logprobs(0.25, 0.25, 0.25, 0.25)).item()) for _ in range(count)]


@pytest.mark.parametrize("seed", [0, 7, -1, -(2**63), 2**63 - 1, 2**70])
def test_a_seed_gives_the_same_draws_whatever_else_is_drawn(seed: int) -> None:
    alone = draws(SamplingParams(temperature=1.0, seed=seed))
    mx.random.seed(99)
    draws(SamplingParams(temperature=1.0, seed=12))
    assert draws(SamplingParams(temperature=1.0, seed=seed)) == alone
    assert len(set(alone)) > 1


def test_several_rows_draw_what_single_rows_draw() -> None:
    one, many = (make_sampler(SamplingParams(temperature=1.0, seed=3)) for _ in range(2))
    row = logprobs(0.25, 0.25, 0.25, 0.25)
    assert many(mx.repeat(row, 40, axis=0)).tolist() == [int(one(row).item()) for _ in range(40)]


def test_rounding_changes_hardly_any_draw() -> None:
    row = mx.random.normal((1, 20_000), key=mx.random.key(1))
    rounded = row + 1e-5 * mx.random.normal(row.shape, key=mx.random.key(2))
    samplers = [make_sampler(SamplingParams(temperature=1.0, seed=5)) for _ in range(2)]
    one, other = (
        [int(draw(each).item()) for _ in range(1000)] for draw, each in zip(samplers, (row, rounded), strict=True)
    )
    assert one == other


def test_draws_at_all_places_follow_the_probabilities() -> None:
    probabilities, count = (0.5, 0.3, 0.15, 0.05), 4000
    sampler = make_sampler(SamplingParams(temperature=1.0, seed=17))
    drawn: list[int] = sampler(mx.repeat(logprobs(*probabilities), count, axis=0)).tolist()
    # Chi-squared with 3 and 15 degrees of freedom: larger in one of 1,000 good generators.
    assert _chi_squared(drawn, probabilities) < 16.3
    pairs = [4 * first + second for first, second in itertools.pairwise(drawn)]
    both = tuple(first * second for first in probabilities for second in probabilities)
    assert _chi_squared(pairs[::2], both) < 37.7


def _chi_squared(drawn: list[int], probabilities: tuple[float, ...]) -> float:
    expected = [len(drawn) * share for share in probabilities]
    return sum((drawn.count(i) - wanted) ** 2 / wanted for i, wanted in enumerate(expected))


def test_without_a_seed_draws_differ() -> None:
    assert draws(SamplingParams(temperature=1.0)) != draws(SamplingParams(temperature=1.0))


def test_temperature_sharpens_and_flattens() -> None:
    def share_of_likeliest(temperature: float) -> float:
        sampler = make_sampler(SamplingParams(temperature=temperature, seed=1))
        return sum(int(sampler(logprobs(0.6, 0.4)).item()) == 0 for _ in range(200)) / 200

    assert share_of_likeliest(0.1) > 0.95
    assert 0.4 < share_of_likeliest(20.0) < 0.65


PROMPT = [0, 1]


def processed(params: SamplingParams, generated: list[int], logits: list[float]) -> list[float]:
    row = mx.array([logits])
    for processor in make_logits_processors(params, len(PROMPT)):
        row = processor(mx.array(PROMPT + generated), row)
    return [round(value, 5) for value in row[0].tolist()]


@pytest.mark.parametrize(
    ("params", "generated", "expected"),
    [
        ({}, [2], [1.0, -1.0, 1.0, 1.0]),
        ({"repetition_penalty": 2.0}, [2, 2], [0.5, -2.0, 0.5, 1.0]),
        ({"presence_penalty": 0.5}, [2, 2, 3], [1.0, -1.0, 0.5, 0.5]),
        ({"frequency_penalty": 0.5}, [2, 2, 3], [1.0, -1.0, 0.0, 0.5]),
        ({"presence_penalty": 0.5, "frequency_penalty": -0.5}, [2, 2], [1.0, -1.0, 1.5, 1.0]),
        ({"presence_penalty": 0.5}, [], [1.0, -1.0, 1.0, 1.0]),
        ({"logit_bias": ((1, 5.0), (3, -100.0))}, [2], [1.0, 4.0, 1.0, -99.0]),
        ({"repetition_penalty": 2.0, "logit_bias": ((2, 4.0),)}, [2], [0.5, -2.0, 4.5, 1.0]),
    ],
)
def test_penalties_and_bias(params: dict[str, float], generated: list[int], expected: list[float]) -> None:
    assert processed(SamplingParams(**params), generated, [1.0, -1.0, 1.0, 1.0]) == expected


def test_neutral_values_cost_nothing() -> None:
    assert make_logits_processors(SamplingParams(temperature=1.0, top_p=0.5), 3) == []


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_chances_are_the_likeliest_in_falling_order(dtype: mx.Dtype) -> None:
    row = mx.array([-4.0, -0.5, -2.0, -1.0]).astype(dtype)
    chances = token_chances(row, 2, 3)
    assert chances.logprob == -2.0
    assert chances.top == ((1, -0.5), (3, -1.0), (2, -2.0))
    assert token_chances(row, 0, 0).top == ()


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_chances_take_no_operation_of_mlx(dtype: mx.Dtype) -> None:
    row = mx.array([-4.0, -0.5, -2.0, -1.0]).astype(dtype)
    mx.eval(row)
    mx.synchronize()
    mx.reset_peak_memory()
    token_chances(row, 2, 3)
    assert mx.get_peak_memory() == 0, "MLX has allocated a result"
