from collections.abc import Iterable

import msgspec

# mlx-lm grows KV state by this many tokens at a time.
GROWTH_TOKENS = 256


class LayerCost(msgspec.Struct, frozen=True):
    """Bytes: `per_token` for each token (or the last `window`), and `fixed` for any length."""

    per_token: int = 0
    window: int | None = None
    fixed: int = 0


class CacheCost(msgspec.Struct, frozen=True):
    layers: tuple[LayerCost, ...]

    def bytes_for(self, lengths: Iterable[int]) -> int:
        # Each sequence of a batch takes the room of the longest.
        lengths = list(lengths)
        longest = -(-max(lengths, default=0) // GROWTH_TOKENS) * GROWTH_TOKENS
        return len(lengths) * sum(
            layer.fixed + layer.per_token * (longest if layer.window is None else min(longest, layer.window))
            for layer in self.layers
        )
