import logging
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx.utils import tree_flatten

from service.executor.loading.device import room_bytes
from service.executor.prefix.cache import NoPrefixCache, PrefixCache, Prefixes
from service.executor.prefix.state import PromptStates
from service.executor.prefix.store import PrefixStore
from service.executor.prefix.worth import MeasuredPrices
from service.profile import ModelProfile
from service.settings import Settings

log = logging.getLogger(__name__)

# The default size is this share of the memory that is free after loading: while a conversation is answered, its state
# is there and in the engine. Beside 17 GB of weights on a Mac with 32 GB, half are 29,000 tokens of Qwen3-Coder-30B.
MEMORY_SHARE = 0.5

# Assumed if free memory is unknown. The prefix cache cannot give way then.
FALLBACK_BYTES = 4 * 1024**3

# Version of the states in files. Raise it with every change of their content.
FORMAT = 3


def open_prefix_cache(model: Any, profile: ModelProfile, settings: Settings) -> Prefixes:
    memory_bytes = memory_for_prefixes(settings.prefix_memory_bytes, room_bytes())
    if memory_bytes == settings.prefix_disk_bytes == 0:
        return NoPrefixCache()
    states = open_states(model, profile)
    if states is None:
        return NoPrefixCache()
    return PrefixCache(states, memory_bytes, _open_store(states, model, profile, settings))


def memory_for_prefixes(setting: int | None, room: int | None) -> int:
    """`room` are the bytes that are free after loading; None if unknown."""
    if setting is not None:
        return setting
    return int(MEMORY_SHARE * (FALLBACK_BYTES if room is None else max(0, room)))


def open_states(model: Any, profile: ModelProfile) -> PromptStates | None:
    try:
        return PromptStates(model)
    except ValueError as exc:
        log.warning("No prefix cache for %s: %s", profile.id, exc)
        return None


def _open_store(states: PromptStates, model: Any, profile: ModelProfile, settings: Settings) -> PrefixStore | None:
    if settings.prefix_disk_bytes == 0:
        return None
    try:
        identity = _identity(model, profile)
        return PrefixStore(
            settings.home / "prefix", identity, settings.prefix_disk_bytes, states, prices=MeasuredPrices()
        )
    except OSError as exc:
        log.warning("The prefix cache is not kept on disk: %s", exc)
        return None


def _identity(model: Any, profile: ModelProfile) -> str:
    """Identifies everything that a state depends on except tokens."""
    weights: Any = tree_flatten(model.parameters())
    dtypes = sorted({str(array.dtype) for _, array in weights})
    parts = (str(FORMAT), profile.fingerprint, *dtypes, mlx_lm.__version__, str(mx.default_device()))
    return " ".join(parts)
