from typing import Any

from service.device.figures import DeviceKind
from service.executor.engine.chunks import Attention

# The head sizes for which MLX's Metal kernel computes attention without keeping its scores (mlx 0.32).
FUSED_HEAD_SIZES = (64, 80, 128)

# For a model that does not name its heads.
USUAL_HEADS = 32

FLOAT32_BYTES = 4


def read_attention(args: Any, kind: DeviceKind) -> Attention:
    """`args` are those of mlx-lm's model, or None."""
    heads = int(getattr(args, "num_attention_heads", None) or USUAL_HEADS)
    width = int(getattr(args, "hidden_size", None) or 0)
    head_size = int(getattr(args, "head_dim", None) or width // heads)
    fused = kind != "cpu" and head_size in FUSED_HEAD_SIZES
    return Attention(0 if fused else heads * FLOAT32_BYTES)
