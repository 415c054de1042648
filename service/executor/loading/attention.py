from typing import Any

from service.device.figures import DeviceKind
from service.device.kv_estimate import score_bytes
from service.executor.engine.chunks import Attention


def read_attention(args: Any, kind: DeviceKind) -> Attention:
    """`args` are those of mlx-lm's model, or None."""
    text = getattr(args, "text_config", None) or args
    config = text if isinstance(text, dict) else getattr(text, "__dict__", {})
    return Attention(score_bytes(config, kind))
