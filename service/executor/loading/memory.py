"""How much memory sequences will need, and how much there is. Knows no MLX."""

import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

GROWTH_TOKENS = 256
"""mlx-lm makes KV state longer by so many tokens at a time."""

CGROUP = Path("/sys/fs/cgroup")


class LayerCost(msgspec.Struct, frozen=True):
    """What one layer keeps of one sequence: `per_token` bytes for each token, of the last `window` tokens where it has
    a window, and `fixed` bytes whatever the length."""

    per_token: int = 0
    window: int | None = None
    fixed: int = 0


class CacheCost(msgspec.Struct, frozen=True):
    """What all layers keep. Attention layers cost per token, recurrent ones a fixed size."""

    layers: tuple[LayerCost, ...]

    def bytes_for(self, lengths: Iterable[int]) -> int:
        """Of sequences of these lengths, in tokens, side by side: in a batch each takes the room of the longest."""
        lengths = list(lengths)
        longest = -(-max(lengths, default=0) // GROWTH_TOKENS) * GROWTH_TOKENS
        return len(lengths) * sum(
            layer.fixed + layer.per_token * (longest if layer.window is None else min(longest, layer.window))
            for layer in self.layers
        )


def free_memory_bytes() -> int | None:
    """What can be used without swapping, or None where that cannot be told cheaply. In a container: what is left of
    its limit, if that is less."""
    if not sys.platform.startswith("linux"):
        return None
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    left = container_memory_bytes(CGROUP)
    return None if free is None else min(free * 1024, free * 1024 if left is None else left)


def container_memory_bytes(cgroup: Path) -> int | None:
    """What is left of the limit of a control group (version 2), or None without one. Pages of files that the kernel
    can drop count as free."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - used + (_field(cgroup / "memory.stat", "inactive_file") or 0))


def _field(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if words[:1] == [name]), None)
