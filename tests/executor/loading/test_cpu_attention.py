"""Attention on a CPU gives what mlx-lm's gives."""

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.base import create_causal_mask

from service.executor.loading.cpu_attention import attend
from service.executor.loading.softmax import (
    log_softmax,
    log_softmax_by_power,
    power_is_faster,
    softmax,
    softmax_by_power,
)

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
    assert mx.allclose(attend(queries, keys, values, 0.3, mask), expected, atol=1e-5).item()


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("compute", [softmax, softmax_by_power])
def test_softmax_by_powers_of_two(compute: Any, dtype: mx.Dtype) -> None:
    mx.random.seed(1)
    lowest = mx.finfo(dtype).min
    scores = mx.concatenate([mx.random.normal((4, 64)) * 30, mx.full((4, 8), lowest)], axis=-1).astype(dtype)
    found, expected = compute(scores), mx.softmax(scores, axis=-1, precise=True)
    assert found.dtype == dtype
    assert mx.allclose(found, expected, rtol=1e-5 if dtype == mx.float32 else 1e-2, atol=1e-7).item()
    assert mx.array_equal(found[:, 64:], mx.zeros((4, 8))).item()


@pytest.mark.parametrize("compute", [softmax, softmax_by_power])
def test_a_row_that_hides_everything_weighs_everything_alike(compute: Any) -> None:
    """mlx-lm's batches have such rows, in front of shorter prompts."""
    assert mx.array_equal(compute(mx.full((1, 4), mx.finfo(mx.float32).min)), mx.full((1, 4), 0.25)).item()


@pytest.mark.parametrize("compute", [log_softmax, log_softmax_by_power])
def test_log_probabilities_by_powers_of_two(compute: Any) -> None:
    mx.random.seed(2)
    logits = mx.concatenate([mx.random.normal((3, 500)) * 9, mx.full((3, 4), -mx.inf)], axis=-1)
    found, expected = compute(logits), logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    assert mx.allclose(found, expected, rtol=1e-5, atol=1e-5).item()
    assert mx.allclose(mx.exp(found).sum(axis=-1), mx.ones(3), atol=1e-5).item()


def test_the_faster_of_both_is_measured_once() -> None:
    assert power_is_faster() is power_is_faster()
