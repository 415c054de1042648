"""The attention of mlx-lm's models, in less time on a CPU."""

import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models.base import scaled_dot_product_attention

from service.executor.loading.shared_prefix import SharedPrefixCache, attend_to_both, masked_scores, with_copies
from service.executor.loading.softmax import is_by_power, power_is_faster, weights_by_power

NAME = "scaled_dot_product_attention"


def route_attention(model: Any, to: Callable[..., mx.array] | None = None) -> None:
    """Makes the layers of `model` attend with `attention`, or `to`. Pays on a CPU only."""
    power_is_faster()  # measured now, and not within a request
    # mlx-lm's models have no other place for it: each calls the function by its name.
    for name in {type(module).__module__ for module in model.modules()}:
        now = getattr(sys.modules.get(name), NAME, None)
        if now in (scaled_dot_product_attention, attention) or isinstance(now, CountedAttention):
            setattr(sys.modules[name], NAME, to or attention)


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """mlx-lm's `scaled_dot_product_attention`. Shapes: queries `[rows, heads, tokens, size]`, keys and values `[rows,
    kv_heads, length, size]`, mask `[rows, 1, tokens, length]` or what MLX allows, sinks `[heads]`."""
    heads, tokens = queries.shape[1:3]
    prefix = cache.prefix if isinstance(cache, SharedPrefixCache) else None
    if prefix is not None:
        # The scores of a few queries take less memory than copies of the prefix.
        are_few = heads * tokens <= keys.shape[1] * (keys.shape[3] + values.shape[3])
        if are_few and (mask is None or mask.shape[1] == 1):
            return attend_to_both(prefix, queries, keys, values, scale, mask, sinks)
        keys, values, mask = with_copies(prefix, keys, values, mask)
    is_quantized = not isinstance(keys, mx.array)
    groups = sinks is None and not is_quantized and _is_same_for_all_heads(mask)
    if groups and is_by_power(queries):
        return attend_by_power(queries, keys, values, scale, mask)
    if groups and tokens == 1 and not isinstance(mask, str) and keys.shape[1] < heads:
        # Queries of one key head are the rows of one product. MLX makes a product of each. Measured on a CPU, for one
        # new token: 0.5 to 0.85 of the time.
        grouped = queries.reshape(queries.shape[0], keys.shape[1], -1, queries.shape[3])
        attended = mx.fast.scaled_dot_product_attention(grouped, keys, values, scale=scale, mask=mask)
        return attended.reshape(queries.shape[0], heads, 1, -1)
    return scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)


class CountedAttention:
    """Counts calls, and those with the keys of their own `SharedPrefixCache`."""

    def __init__(self) -> None:
        self.calls = 0
        self.own = 0

    def __call__(self, queries: mx.array, keys: Any, values: Any, cache: Any, *rest: Any, **options: Any) -> mx.array:
        self.calls += 1
        self.own += isinstance(cache, SharedPrefixCache) and keys.shape[2] == cache.own_length
        return attention(queries, keys, values, cache, *rest, **options)


def attend_by_power(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Any) -> mx.array:
    # The mask is one for all heads. Scores and weights are held at the same time.
    rows, heads, tokens, size = queries.shape
    length = keys.shape[2]
    if isinstance(mask, str):  # "causal"
        mask = mx.arange(length - tokens, length)[:, None] >= mx.arange(length)
    grouped = (queries * scale).reshape(rows, keys.shape[1], -1, size)
    weights = weights_by_power(masked_scores(grouped, keys, tokens, mask))
    attended = (weights @ values) / weights.sum(axis=-1, keepdims=True)
    return attended.reshape(rows, heads, tokens, -1)


def _is_same_for_all_heads(mask: Any) -> bool:
    return not isinstance(mask, mx.array) or mask.ndim < 3 or mask.shape[-3] == 1
