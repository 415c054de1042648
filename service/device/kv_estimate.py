from collections.abc import Mapping
from typing import Any

# KV state has 16 bits a value, except on a CPU with dense weights.
VALUE_BYTES = 2


def kv_bytes_per_token(config: Mapping[str, Any]) -> int:
    """Estimates the KV state of one token from a model's config.json, 0 if it names no attention. Layers whose state
    does not grow do not count. A loaded model is measured instead."""
    text = config.get("text_config") or config
    layers = _full_attention_layers(text)
    if rank := text.get("kv_lora_rank"):
        return int(layers * (rank + text.get("qk_rope_head_dim", 0)) * VALUE_BYTES)
    heads = int(text.get("num_attention_heads") or text.get("n_head") or 0)
    kv_heads = int(text.get("num_key_value_heads") or heads)
    width = int(text.get("head_dim") or (int(text.get("hidden_size") or 0) // heads if heads else 0))
    return 2 * layers * kv_heads * width * VALUE_BYTES


def _full_attention_layers(text: Mapping[str, Any]) -> int:
    count = int(text.get("num_hidden_layers") or text.get("n_layer") or 0)
    if isinstance(kinds := text.get("layer_types"), list):
        return sum(kind in ("full_attention", "attention") for kind in kinds)
    if interval := text.get("full_attention_interval") or text.get("sliding_window_pattern"):
        return count // int(interval)
    return count
