"""Models for coding agents, chosen from published figures in November 2026."""

from difflib import get_close_matches

import msgspec

from service.device.figures import DeviceFigures
from service.device.memory import LoadNeeds, load_refusal, usable_bytes, with_default_limit, without_programs

# One agent's session. Its KV state adds to the weights.
SESSION_TOKENS = 32_000

# Linux reports less memory than is built in.
REPORTED_SHARE = 0.9


class RecommendedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`size_bytes` is the approximate download; `kv_bytes` is the KV state of one token. `shared_gib` is the
    smallest memory of a machine on which other programs have room beside the model."""

    id: str
    size_bytes: int
    context_length: int
    kv_bytes: int
    shared_gib: int = 0
    good_for: str

    @property
    def needs(self) -> LoadNeeds:
        return LoadNeeds(weight_bytes=self.size_bytes, token_bytes=self.kv_bytes)

    @property
    def needed_bytes(self) -> int:
        return self.size_bytes + self.needs.state_bytes(min(SESSION_TOKENS, self.context_length))

    def suits(self, figures: DeviceFigures) -> bool:
        """A card's memory is the model's alone."""
        return figures.kind == "cuda" or figures.total >= REPORTED_SHARE * self.shared_gib * 1024**3


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
        shared_gib=8,
        good_for="small edits and questions on 8 GB",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3-8B-4bit",
        size_bytes=4_600_000_000,
        context_length=40_960,
        kv_bytes=147_456,
        shared_gib=16,
        good_for="chat and single-file edits on 16 GB",
    ),
    RecommendedModel(
        id="mlx-community/gpt-oss-20b-MXFP4-Q8",
        size_bytes=12_100_000_000,
        context_length=131_072,
        kv_bytes=24_576,
        shared_gib=24,
        good_for="agents with reasoning on 24 GB",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
        size_bytes=17_200_000_000,
        context_length=262_144,
        kv_bytes=98_304,
        shared_gib=32,
        good_for="coding agents on 32 GB; fast for its size",
    ),
    RecommendedModel(
        id="mlx-community/Qwen3.6-35B-A3B-4bit",
        size_bytes=20_400_000_000,
        context_length=262_144,
        kv_bytes=20_480,
        shared_gib=36,
        good_for="coding agents on 36 GB and more; long sessions",
    ),
    RecommendedModel(
        id="mlx-community/GLM-4.5-Air-4bit",
        size_bytes=60_200_000_000,
        context_length=131_072,
        kv_bytes=188_416,
        shared_gib=96,
        good_for="coding agents on 96 GB and more",
    ),
)


def nearest_ids(name: str) -> list[str]:
    """Returns at most three hub ids that a name such as `qwen3:0.6b` may mean."""
    known = {_plain(model.id.rpartition("/")[2]): model.id for model in RECOMMENDED}
    return [known[found] for found in get_close_matches(_plain(name.rpartition("/")[2]), known, n=3, cutoff=0.45)]


def most_usable_bytes(figures: DeviceFigures) -> int:
    """Returns the bytes that a model can use if no other program runs."""
    usable = usable_bytes(without_programs(with_default_limit(figures)))
    return figures.total if usable is None else usable


def fitting(figures: DeviceFigures) -> list[RecommendedModel]:
    """Returns the models that the machine can load, the largest first: those beside which a session fits, and then
    those with less context."""
    empty, usable = without_programs(with_default_limit(figures)), most_usable_bytes(figures)
    models = [model for model in reversed(RECOMMENDED) if model.suits(figures) and not load_refusal(empty, model.needs)]
    return sorted(models, key=lambda model: model.needed_bytes > usable)


def present_refusal(name: str, figures: DeviceFigures) -> str | None:
    """Returns why a recommended model cannot be loaded now, for people; None if it can, or is not recommended."""
    needs = next((model.needs for model in RECOMMENDED if model.id == name), None)
    return None if needs is None else load_refusal(with_default_limit(figures), needs)


def _plain(name: str) -> str:
    return name.lower().replace(":", "-").replace("_", "-")
