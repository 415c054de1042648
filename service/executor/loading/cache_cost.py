from bisect import bisect_right
from collections.abc import Iterable
from functools import partial
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from service.device.kv_estimate import SMALLEST_CHUNK
from service.device.memory import missing_bytes
from service.executor.loading.attention import read_attention
from service.executor.loading.device import device_kind

# The longest sequence where memory sets no limit. No model has a longer context.
MOST_TOKENS = 2**24

# mlx-lm grows KV state by this many tokens at a time.
GROWTH_TOKENS = 256


class LayerCost(msgspec.Struct, frozen=True):
    """Bytes: `per_token` for each token (or the last `window`), and `fixed` for any length."""

    per_token: int = 0
    window: int | None = None
    fixed: int = 0

    def kept(self, length: int) -> int:
        return length if self.window is None else min(length, self.window)


class CacheCost(msgspec.Struct, frozen=True):
    """`score_bytes`: what attention keeps for each token of the longest sequence while a prompt is read."""

    layers: tuple[LayerCost, ...]
    score_bytes: int = 0

    @property
    def fixed(self) -> int:
        return sum(layer.fixed for layer in self.layers)

    @property
    def per_token(self) -> int:
        return sum(layer.per_token for layer in self.layers)

    def bytes_for(self, lengths: Iterable[int]) -> int:
        # Each sequence of a batch takes the room of the longest.
        lengths = list(lengths)
        longest = -(-max(lengths, default=0) // GROWTH_TOKENS) * GROWTH_TOKENS
        state = sum(layer.fixed + layer.per_token * layer.kept(longest) for layer in self.layers)
        # One layer after another attends, and one prompt after another is read.
        attended = max((layer.kept(longest) for layer in self.layers if layer.per_token), default=0)
        return len(lengths) * state + self.score_bytes * attended

    def longest(self, usable: int | None, held: int) -> int:
        """Returns the tokens that fit into `usable` bytes and the `held` ones, which are in use and count as free."""
        missing = partial(missing_bytes, usable=usable, held=held)
        return max(0, bisect_right(range(MOST_TOKENS + 1), 0, key=lambda n: missing(self.bytes_for([n]))) - 1)


def measure_cache_cost(model: Any) -> CacheCost:
    # Measured, because configs differ by family.
    cache = make_prompt_cache(model)
    model(mx.array([[0]]), cache=cache)
    mx.eval([layer.state for layer in cache])
    layers = tuple(_layer_cost(part) for layer in cache for part in getattr(layer, "caches", [layer]))
    attention = read_attention(getattr(model, "args", None), device_kind())
    return CacheCost(layers, score_bytes=SMALLEST_CHUNK * attention.score_bytes)


def _layer_cost(layer: Any) -> LayerCost:
    leaves: Any = tree_flatten(layer.state)
    arrays = [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]
    keys = getattr(layer, "keys", None)
    if keys is None:
        return LayerCost(fixed=sum(array.nbytes for array in arrays))
    rows = (keys[0] if isinstance(keys, list | tuple) else keys).shape[2]  # [1, heads, tokens, width]
    window = getattr(layer, "max_size", None) or getattr(layer, "chunk_size", None)
    per_token = sum(array.nbytes for array in arrays if array.ndim == 4) // rows
    return LayerCost(per_token=per_token, window=window)
