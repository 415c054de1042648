from collections.abc import Mapping
from typing import Any

from service.device.figures import DeviceKind

# Tokens of a prompt that are read at once, at least. Measured on a CPU: chunks of 32 tokens take 1.8 times the
# processor time of chunks of 64.
SMALLEST_CHUNK = 64

# The head sizes for which MLX's Metal kernel computes attention without keeping its scores (mlx 0.32).
FUSED_HEAD_SIZES = (64, 80, 128)

# For a model that does not name its heads.
USUAL_HEADS = 32

FLOAT32_BYTES = 4

# On a CPU, scores and weights are held at the same time (`loading/cpu_attention.py`).
COPIES_ON_CPU = 2

# KV state has 16 bits a value, except on a CPU with dense weights.
VALUE_BYTES = 2


def bytes_per_token(config: Mapping[str, Any], kind: DeviceKind) -> int:
    """Estimates KV state and, while the smallest chunk is read, attention scores."""
    kv_bytes = kv_bytes_per_token(config)
    return kv_bytes + SMALLEST_CHUNK * score_bytes(config, kind) if kv_bytes else 0


def score_bytes(config: Mapping[str, Any], kind: DeviceKind) -> int:
    """Returns what one layer holds for each pair of a query and a key; 0 if scores are not kept."""
    text = _text(config)
    heads = _number(text, "num_attention_heads", "n_head") or USUAL_HEADS
    head_size = _number(text, "head_dim") or _number(text, "hidden_size") // heads
    if kind == "cpu":
        return COPIES_ON_CPU * heads * FLOAT32_BYTES
    return 0 if head_size in FUSED_HEAD_SIZES else heads * FLOAT32_BYTES


def kv_bytes_per_token(config: Mapping[str, Any]) -> int:
    """Estimates the KV state of one token from a model's config.json, 0 if it names no attention. Layers whose state
    does not grow do not count. A loaded model is measured instead."""
    text = _text(config)
    layers = _full_attention_layers(text)
    if rank := _number(text, "kv_lora_rank"):
        return layers * (rank + _number(text, "qk_rope_head_dim")) * VALUE_BYTES
    heads = _number(text, "num_attention_heads", "n_head")
    kv_heads = _number(text, "num_key_value_heads") or heads
    width = _number(text, "head_dim") or (_number(text, "hidden_size") // heads if heads else 0)
    return 2 * layers * kv_heads * width * VALUE_BYTES


def _full_attention_layers(text: Mapping[str, Any]) -> int:
    if isinstance(kinds := text.get("layer_types"), list):
        return sum(kind in ("full_attention", "attention") for kind in kinds)
    interval = _number(text, "full_attention_interval", "sliding_window_pattern") or 1
    return _number(text, "num_hidden_layers", "n_layer") // interval


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return nested if nested and isinstance(nested, dict) else config


def _number(text: Mapping[str, Any], *names: str) -> int:
    # Some families have a list with a number for each layer.
    return next((value for name in names if type(value := text.get(name)) is int and value > 0), 0)
