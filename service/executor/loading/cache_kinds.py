from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    RotatingKVCache,
    can_trim_prompt_cache,
    make_prompt_cache,
)


def leaves(caches: Iterable[Any]) -> Iterator[Any]:
    for cache in caches:
        if isinstance(cache, CacheList):
            yield from leaves(cache.caches)
        else:
            yield cache


@contextmanager
def growing_once(caches: Iterable[Any], tokens: int) -> Iterator[None]:
    """Inside, a `KVCache` grows by `tokens` and the beginning of an answer. Otherwise it grows by 256 tokens at a time,
    and copies itself each time: 78 times for a prompt of 20,000."""
    growing = [leaf for leaf in leaves(caches) if type(leaf) is KVCache]
    for leaf in growing:
        leaf.step = tokens + KVCache.step
    try:
        yield
    finally:
        for leaf in growing:
            leaf.step = KVCache.step


def can_take_back(model: Any) -> bool:
    """Returns False if the state is recurrent or has windows."""
    found = list(leaves(make_prompt_cache(model)))
    slides = any(getattr(leaf, "max_size", None) or getattr(leaf, "chunk_size", None) for leaf in found)
    return can_trim_prompt_cache(found) and not slides


def can_undo(model: Any) -> bool:
    """Returns True if `engine.undo` can take back what the model has read in its last call."""
    kinds = {type(leaf) for leaf in leaves(make_prompt_cache(model))}
    return (
        can_take_back(model) or kinds <= {KVCache, ArraysCache} or kinds <= {KVCache, RotatingKVCache, ChunkedKVCache}
    )


def can_merge(model: Any) -> bool:
    return all(hasattr(leaf, "merge") for leaf in leaves(make_prompt_cache(model)))


def is_recurrent(model: Any) -> bool:
    return any(isinstance(leaf, ArraysCache) for leaf in leaves(make_prompt_cache(model)))
