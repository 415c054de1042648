"""Attention on a CPU gives what mlx-lm's gives."""

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.base import create_causal_mask

from service.device.kv_estimate import score_bytes
from service.executor.loading.cpu_attention import attend_by_power, attention
from service.executor.loading.softmax import log_softmax, power_is_faster, softmax, weights_by_power

LENGTH = 20


def masks(rows: int, tokens: int) -> dict[str, Any]:
    shown = mx.random.uniform(shape=(rows, 1, tokens, LENGTH)) > 0.3
    return {
        "none": None,
        "causal": "causal",
        "window": create_causal_mask(tokens, LENGTH - tokens, window_size=7),
        "bool": shown,
        "numbers": mx.where(shown, 0.5, -mx.inf),
        "padding": mx.arange(LENGTH) >= mx.arange(rows)[:, None, None, None],
    }


@pytest.mark.parametrize("kind", masks(1, 1))
@pytest.mark.parametrize("tokens", [1, 3, LENGTH])
@pytest.mark.parametrize(("rows", "heads", "kv_heads"), [(1, 6, 2), (3, 6, 2), (2, 4, 4), (1, 3, 1)])
def test_the_same_as_mlx(rows: int, heads: int, kv_heads: int, tokens: int, kind: str) -> None:
    mx.random.seed(tokens)
    queries = mx.random.normal((rows, heads, tokens, 8))
    keys, values = mx.random.normal((rows, kv_heads, LENGTH, 8)), mx.random.normal((rows, kv_heads, LENGTH, 5))
    mask = masks(rows, tokens)[kind]
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask)
    for attend in (attend_by_power, lambda *given: attention(*given[:3], None, *given[3:])):
        assert mx.allclose(attend(queries, keys, values, 0.3, mask), expected, atol=1e-5).item()


def test_no_more_scores_are_held_than_are_counted() -> None:
    queries, keys, values = (mx.random.normal((1, heads, 256, 8)) for heads in (6, 2, 2))
    mx.eval(queries, keys, values)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(attend_by_power(queries, keys, values, 0.3, "causal"))
    counted = score_bytes({"num_attention_heads": 6, "head_dim": 8}, "cpu") * 256 * 256
    assert mx.get_peak_memory() - before < 1.2 * counted


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_softmax(dtype: mx.Dtype) -> None:
    mx.random.seed(1)
    scores = mx.concatenate([mx.random.normal((4, 64)) * 30, mx.full((4, 8), mx.finfo(dtype).min)], axis=-1)
    found, expected = softmax(scores.astype(dtype)), mx.softmax(scores.astype(dtype), axis=-1, precise=True)
    assert found.dtype == dtype
    assert mx.allclose(found, expected, rtol=1e-5, atol=1e-7).item()
    assert mx.array_equal(found[:, 64:], mx.zeros((4, 8))).item()


def test_weights_by_power() -> None:
    mx.random.seed(3)
    scores = mx.random.normal((4, 64)) * 30
    weights = weights_by_power(scores)
    expected = mx.softmax(scores, axis=-1)
    assert mx.allclose(weights / weights.sum(axis=-1, keepdims=True), expected, rtol=1e-5, atol=1e-7).item()


def test_a_row_that_hides_everything_weighs_everything_alike() -> None:
    """mlx-lm's batches have such rows, in front of shorter prompts."""
    hidden = mx.full((1, 4), mx.finfo(mx.float32).min)
    assert mx.array_equal(weights_by_power(hidden), mx.ones((1, 4))).item()
    assert mx.array_equal(softmax(hidden), mx.full((1, 4), 0.25)).item()


def test_log_probabilities() -> None:
    mx.random.seed(2)
    logits = mx.concatenate([mx.random.normal((3, 500)) * 9, mx.full((3, 4), -mx.inf)], axis=-1)
    found, expected = log_softmax(logits), logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    assert mx.allclose(found, expected, rtol=1e-5, atol=1e-5).item()
    assert mx.allclose(mx.exp(found).sum(axis=-1), mx.ones(3), atol=1e-5).item()


def test_the_faster_of_both_is_measured_once() -> None:
    power_is_faster.cache_clear()
    for _ in range(3):
        power_is_faster()
    assert power_is_faster.cache_info().misses == 1
