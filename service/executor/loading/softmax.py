"""Softmax, for CPUs on which MLX's `exp` is slow: without vector instructions it takes 12 ns a number,
and three quarters of the attention of a long prompt. `power` calls the C library, which takes 4 ns."""

import math
import time
from collections.abc import Callable
from functools import cache

import mlx.core as mx

LOG2_E = math.log2(math.e)

# `power` must be this much faster: it needs one more product.
FASTER = 0.7

# For a measurement of about a millisecond.
NUMBERS = 2**16
TRIES = 3


def softmax(scores: mx.array) -> mx.array:
    """Over the last axis, computed in f32."""
    return softmax_by_power(scores) if power_is_faster() else mx.softmax(scores, axis=-1, precise=True)


def log_softmax(logits: mx.array) -> mx.array:
    """Over the last axis, in the type of `logits`."""
    if power_is_faster() and logits.dtype == mx.float32:
        return log_softmax_by_power(logits)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def softmax_by_power(scores: mx.array) -> mx.array:
    weights = _powers(_below_highest(scores.astype(mx.float32)))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(scores.dtype)


def log_softmax_by_power(logits: mx.array) -> mx.array:
    below = _below_highest(logits)
    return below - mx.log(_powers(below).sum(axis=-1, keepdims=True))


def _below_highest(numbers: mx.array) -> mx.array:
    return numbers - numbers.max(axis=-1, keepdims=True)


def _powers(numbers: mx.array) -> mx.array:
    return mx.power(2.0, numbers * LOG2_E)


@cache
def power_is_faster() -> bool:
    """Measures it in the first call. It is not tried on GPUs."""
    if mx.default_device() != mx.cpu:
        return False
    numbers = mx.linspace(-20.0, 0.0, NUMBERS)
    return _seconds(lambda: mx.power(2.0, numbers)) < FASTER * _seconds(lambda: mx.exp(numbers))


def _seconds(compute: Callable[[], mx.array]) -> float:
    best = math.inf
    for _ in range(TRIES):
        started = time.perf_counter()
        mx.eval(compute())
        best = min(best, time.perf_counter() - started)
    return best
