"""Models for coding agents, chosen from published figures in November 2026."""

from difflib import get_close_matches

import msgspec

GB = 10**9
# One agent's session. Its KV state adds to the weights.
SESSION_TOKENS = 32_000
# Python, the tokenizer, and the buffers of one step.
OVERHEAD_BYTES = 2 * GB
# The share of a Mac's shared memory that MLX may use, approximately.
USABLE_MEMORY = 0.7


class RecommendedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`size_bytes` is the approximate download; `kv_bytes` is the KV state of one token."""

    id: str
    size_bytes: int
    context_length: int
    kv_bytes: int
    good_for: str

    @property
    def needed_bytes(self) -> int:
        return self.size_bytes + self.kv_bytes * min(SESSION_TOKENS, self.context_length) + OVERHEAD_BYTES


# KV bytes: 2 x layers x KV heads x head size x 2 bytes, of the full-attention layers.
RECOMMENDED = (
    RecommendedModel(
        id="mlx-community/Qwen3-0.6B-4bit",
        size_bytes=350_000_000,
        context_length=40_960,
        kv_bytes=114_688,
        good_for="trying things out; calls simple tools",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3-4B-Instruct-2507-4bit",
        size_bytes=2_300_000_000,
        context_length=262_144,
        kv_bytes=147_456,
        good_for="small edits and questions on 8 GB",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3-8B-4bit",
        size_bytes=4_600_000_000,
        context_length=40_960,
        kv_bytes=147_456,
        good_for="chat and single-file edits on 16 GB",
    ),
    RecommendedModel(
        id="mlx-community/gpt-oss-20b-MXFP4-Q8",
        size_bytes=12_100_000_000,
        context_length=131_072,
        kv_bytes=24_576,
        good_for="agents with reasoning on 24 GB",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
        size_bytes=17_200_000_000,
        context_length=262_144,
        kv_bytes=98_304,
        good_for="coding agents on 32 GB; fast for its size",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3.6-35B-A3B-4bit",
        size_bytes=20_400_000_000,
        context_length=262_144,
        kv_bytes=20_480,
        good_for="coding agents on 36 GB and more; long sessions",
    ),
    RecommendedModel(
        id="mlx-community/GLM-4.5-Air-4bit",
        size_bytes=60_200_000_000,
        context_length=131_072,
        kv_bytes=188_416,
        good_for="coding agents on 96 GB and more",
    ),
)


def nearest_ids(name: str) -> list[str]:
    """Returns at most three hub ids that a name such as `qwen3:0.6b` may mean."""
    known = {_plain(model.id.rpartition("/")[2]): model.id for model in RECOMMENDED}
    return [known[found] for found in get_close_matches(_plain(name.rpartition("/")[2]), known, n=3, cutoff=0.45)]


def usable_bytes(memory_bytes: int) -> int:
    """Returns how much of a machine's memory models can use."""
    return round(USABLE_MEMORY * memory_bytes)


def fitting(usable: int) -> list[RecommendedModel]:
    """The recommended models that need at most `usable` bytes, the largest first."""
    return [model for model in reversed(RECOMMENDED) if model.needed_bytes <= usable]


def _plain(name: str) -> str:
    return name.lower().replace(":", "-").replace("_", "-")
