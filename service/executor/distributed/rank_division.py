import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from service.executor.distributed.agreement import open_agreed, smallest
from service.executor.distributed.mlx_ranks import MlxRanks
from service.executor.loading.device import room_bytes
from service.executor.prefix.cache import Prefixes
from service.executor.prefix.opening import memory_for_prefixes, open_states
from service.profile import ModelProfile
from service.settings import Parallel, Settings

log = logging.getLogger(__name__)

KV_HEADS = ("n_kv_heads", "num_key_value_heads", "num_kv_heads")


class CannotDivide(ValueError): ...


class RankDivision:
    """Divides, then reads layer by layer, so that no rank holds much more than its part."""

    def __init__(self, ranks: MlxRanks, parallel: Parallel | None) -> None:
        self.parts = ranks.size
        self._ranks = ranks
        self._parallel = parallel

    def agree(self, here: bool) -> bool:
        return bool(smallest(self._ranks, int(here)))

    def apply(self, model: Any, config: dict[str, Any]) -> None:
        parallel = self._parallel or ("tensor" if hasattr(model, "shard") else "pipeline")
        if parallel == "tensor":
            self._shard(model, config)
        else:
            self._pipeline(model, config)
        for layer in _layers(model):
            mx.eval(layer.parameters())
        mx.eval(model.parameters())
        mx.clear_cache()
        log.info("Rank %d of %d holds its part of the model (%s parallel)", self._ranks.rank, self.parts, parallel)

    def open_prefix_cache(self, model: Any, profile: ModelProfile, settings: Settings) -> Prefixes:
        memory_bytes = memory_for_prefixes(settings.prefix_memory_bytes, room_bytes())
        return open_agreed(open_states(model, profile), memory_bytes, self._ranks)

    def _shard(self, model: Any, config: dict[str, Any]) -> None:
        if not hasattr(model, "shard"):
            raise CannotDivide(f"{_kind(config)} has no tensor parallel form in mlx-lm. Try --parallel pipeline.")
        text = config.get("text_config", config)
        heads, kv_heads = (int(text.get(key) or 0) for key in ("num_attention_heads", "num_key_value_heads"))
        if heads % self.parts:
            raise self._uneven(config, heads, kv_heads)
        model.shard(self._ranks.group)
        if any(left * self.parts < kv_heads for left in _kv_heads_left(model)):
            raise self._uneven(config, heads, kv_heads)

    def _pipeline(self, model: Any, config: dict[str, Any]) -> None:
        inner: Any = getattr(model, "model", None)
        if not hasattr(inner, "pipeline"):
            raise CannotDivide(f"{_kind(config)} has no pipeline parallel form in mlx-lm. Try --parallel tensor.")
        if len(inner.layers) < self.parts:
            raise CannotDivide(f"{len(inner.layers)} layers cannot be divided among {self.parts} ranks.")
        inner.pipeline(self._ranks.group)

    def _uneven(self, config: dict[str, Any], heads: int, kv_heads: int) -> CannotDivide:
        fit = [n for n in range(2, heads + 1) if heads % n == 0 and (not kv_heads or kv_heads % n == 0)]
        advice = f"Start {' or '.join(map(str, fit))} ranks" if fit else "Use one machine"
        return CannotDivide(
            f"{heads} heads and {kv_heads} key-value heads of {_kind(config)} cannot be divided among {self.parts} "
            f"ranks. {advice}, or try --parallel pipeline."
        )


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("anyclaude", "mlx", "mlx-lm")}


def _layers(model: Any) -> list[Any]:
    return [layer for layer in getattr(model, "layers", []) if layer is not None]


def _kv_heads_left(model: Any) -> Iterator[int]:
    for _, module in model.named_modules():
        for name in KV_HEADS:
            value = getattr(module, name, None)
            if isinstance(value, int):
                yield value


def _kind(config: dict[str, Any]) -> str:
    return f"a model of the type {config.get('model_type', 'unknown')}"
