import logging
import os
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from service.executor.loading.cache_cost import CacheCost, LayerCost
from service.executor.loading.free_memory import free_memory_bytes

log = logging.getLogger(__name__)

# MLX may keep this share of the device's memory in freed buffers. It has no limit by default.
BUFFER_SHARE = 0.05

# KV state may take this share of free memory: while a batch grows, one layer of it exists twice.
KV_SHARE = 0.9


def set_memory_limits() -> None:
    info = mx.device_info()
    total = int(info.get("memory_size", 0)) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    mx.set_cache_limit(int(BUFFER_SHARE * total))
    if not mx.metal.is_available():
        return
    try:
        mx.set_wired_limit(int(info["max_recommended_working_set_size"]))
    except (KeyError, RuntimeError, ValueError) as exc:  # before macOS 15, or above `iogpu.wired_limit_mb`
        log.warning("The model's memory could not be wired, which makes the first tokens after a pause slow: %s", exc)


def measure_cache_cost(model: Any) -> CacheCost:
    # Measured, because configs differ by family.
    cache = make_prompt_cache(model)
    model(mx.array([[0]]), cache=cache)
    mx.eval([layer.state for layer in cache])
    return CacheCost(tuple(_layer_cost(part) for layer in cache for part in getattr(layer, "caches", [layer])))


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


def room_bytes() -> int | None:
    """Bytes that can still be allocated, MLX's freed buffers included; None if unknown."""
    rooms = []
    free = free_memory_bytes()
    if free is not None:
        rooms.append(free)
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if recommended:
        rooms.append(max(0, int(recommended) - mx.get_active_memory() - mx.get_cache_memory()))
    return min(rooms) + mx.get_cache_memory() if rooms else None


def held_bytes() -> int:
    return mx.get_active_memory() + mx.get_cache_memory()
