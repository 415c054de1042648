"""Softmax in less time on a CPU."""

import math
import time
from collections.abc import Callable
from functools import cache

import mlx.core as mx

LOG2_E = math.log2(math.e)

# On x86, MLX's `exp` has no vector instructions and takes 12 ns a number, which was three quarters of the attention of
# a long prompt. `power` calls the C library, which takes 4 ns. It is used if it takes at most this share of the time,
# because it needs one more product.
SHARE_OF_EXP = 0.7

# For a measurement of about a millisecond.
NUMBERS = 2**16
TRIES = 3


def softmax(scores: mx.array) -> mx.array:
    """Over the last axis."""
    if not is_by_power(scores):
        return mx.softmax(scores, axis=-1, precise=True)
    weights = weights_by_power(scores)
    return weights / weights.sum(axis=-1, keepdims=True)


def log_softmax(logits: mx.array) -> mx.array:
    """Over the last axis."""
    if not is_by_power(logits):
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    below = _below_highest(logits)
    return below - mx.log(_exp(below).sum(axis=-1, keepdims=True))


def weights_by_power(scores: mx.array) -> mx.array:
    """A row's highest score weighs 1, and they are not divided by their sum. Takes as much memory as the scores."""
    return _exp(_below_highest(scores))


def is_by_power(numbers: mx.array) -> bool:
    return numbers.dtype == mx.float32 and power_is_faster()


@cache
def power_is_faster() -> bool:
    """Measures it in the first call. False on a GPU."""
    if mx.default_device() != mx.cpu:
        return False
    numbers = mx.linspace(-20.0, 0.0, NUMBERS)
    return _best_seconds(lambda: mx.power(2.0, numbers)) < SHARE_OF_EXP * _best_seconds(lambda: mx.exp(numbers))


def _below_highest(numbers: mx.array) -> mx.array:
    return numbers - numbers.max(axis=-1, keepdims=True)


def _exp(numbers: mx.array) -> mx.array:
    return mx.power(2.0, numbers * LOG2_E)


def _best_seconds(compute: Callable[[], mx.array]) -> float:
    best = math.inf
    for _ in range(TRIES):
        started = time.perf_counter()
        mx.eval(compute())
        best = min(best, time.perf_counter() - started)
    return best
