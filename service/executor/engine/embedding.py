from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from service.errors import UnsupportedValue


def embedding(model: Any, tokens: list[int], chunk_tokens: int) -> bytes:
    """Pools the last token (Qwen3-Embedding's model card) and scales to length 1. Raises `UnsupportedValue` for models
    whose hidden states mlx-lm hides."""
    inner = getattr(model, "model", None)
    if inner is None:
        raise UnsupportedValue("This model makes no embeddings. Serve an embedding model.", param="model")
    cache = make_prompt_cache(model)
    hidden = mx.zeros((1, 1, 1))
    for start in range(0, len(tokens), chunk_tokens):
        hidden = inner(mx.array([tokens[start : start + chunk_tokens]]), cache=cache)
        mx.eval(hidden)
    last = np.array(hidden[0, -1].astype(mx.float32))
    length = float(np.linalg.norm(last))
    return (last / length if length else last).astype("<f4").tobytes()
