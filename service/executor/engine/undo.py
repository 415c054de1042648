from typing import Any

from mlx_lm.models.cache import ArraysCache, RotatingKVCache, trim_prompt_cache

from service.executor.loading.cache_kinds import leaves


def take_back(caches: list[Any], tokens: int, *, of: int) -> None:
    """Takes back the last `tokens` of the `of` tokens that the model has read in its last call. At least one of several
    must stay. The caches hold no recurrent layers."""
    for leaf in leaves(caches):
        # Several tokens were put behind the window, in the order of time. A single one has overwritten the oldest row,
        # which the next token does not look at and overwrites again.
        is_window = isinstance(leaf, RotatingKVCache)
        if is_window and of > 1:
            leaf.keys, leaf.values = leaf.keys[..., :-tokens, :], leaf.values[..., :-tokens, :]
        leaf.trim(tokens)


class Undo:
    """Takes caches that have read `read` tokens back to them. Recurrent layers go back to a copy, which costs no bytes:
    models replace their arrays and never write into them."""

    def __init__(self, caches: list[Any], read: int) -> None:
        self.read = read
        found = list(leaves(caches))
        self._copies = [(leaf, list(leaf.cache)) for leaf in found if isinstance(leaf, ArraysCache)]
        self._others = [leaf for leaf in found if not isinstance(leaf, ArraysCache)]

    def apply(self, read: int) -> None:
        """`read` tokens are read now."""
        for leaf, arrays in self._copies:
            leaf.cache = arrays
        trim_prompt_cache(self._others, read - self.read)
