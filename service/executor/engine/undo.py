from typing import Any

from mlx_lm.models.cache import ArraysCache, trim_prompt_cache

from service.executor.loading.cache_kinds import leaves


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
