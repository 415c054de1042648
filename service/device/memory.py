from math import ceil

import msgspec
from msgspec.structs import replace

from service.device.figures import DeviceFigures
from service.settings import WiredMemory

# The share of the machine's memory that is left to other programs.
SYSTEM_SHARE = 0.05

# The share of free memory that KV state may take: while a batch grows, one layer of it exists twice.
KV_SHARE = 0.9

# Dense weights on a CPU may take this share of free memory; the rest is for KV state and other programs.
DENSE_SHARE = 0.6

# The share of the device's memory that MLX may keep in freed buffers; without a limit it keeps all of them.
BUFFER_SHARE = 0.05

# A model is not loaded if its memory holds fewer tokens than this: an agent's first question would not fit.
LEAST_CONTEXT_TOKENS = 4096

# What macOS needs beside a raised `iogpu.wired_limit_mb`, or `SYSTEM_SHARE` if that is more.
MACOS_BYTES = 4 * 1024**3

# Macs with less memory than this recommend two thirds of it, others three quarters.
LARGE_MAC_BYTES = 36 * 1024**3

# Bytes to spare if memory is unknown.
UNLIMITED = 2**60

MIB = 1024**2
GB = 10**9


class LoadNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """A draft model's are included. `token_bytes` are `kv_estimate`'s."""

    weight_bytes: int = 0
    token_bytes: int = 0

    @property
    def least_state_bytes(self) -> int:
        return self.state_bytes(LEAST_CONTEXT_TOKENS)

    @property
    def least_bytes(self) -> int:
        return self.weight_bytes + self.least_state_bytes

    def state_bytes(self, tokens: int) -> int:
        return ceil(tokens * self.token_bytes / KV_SHARE)


def usable_bytes(figures: DeviceFigures) -> int | None:
    """Returns the bytes that MLX can still allocate, its freed buffers included; None if unknown. Negative if other
    programs need some of them."""
    rooms = []
    if figures.kind == "cuda":
        if figures.card_free is not None:
            rooms.append(figures.card_free)
    elif figures.free is not None:
        rooms.append(figures.free - int(SYSTEM_SHARE * figures.total))
    if figures.recommended is not None:
        rooms.append(max(0, figures.recommended - figures.active - figures.buffers))
    return min(rooms) + figures.buffers if rooms else None


def missing_bytes(needed: int, usable: int | None, held: int) -> int:
    """Returns the bytes missing for `needed` bytes of KV state; `held` of those in use count as free."""
    return -UNLIMITED if usable is None else needed - int(KV_SHARE * (usable + held))


def buffer_limit_bytes(figures: DeviceFigures) -> int:
    return int(BUFFER_SHARE * (figures.card_total or figures.total))


def dense_weights_fit(figures: DeviceFigures, needed: int) -> bool:
    return figures.free is None or needed <= DENSE_SHARE * figures.free


def wired_bytes(figures: DeviceFigures, setting: WiredMemory | int, weight_bytes: int) -> int | None:
    """Returns the limit to set before the weights are read; None to leave it alone."""
    # Metal fills it in order of allocation: a limit of the weights' size wires them, and not what comes and goes.
    if figures.kind != "metal" or figures.recommended is None or setting == "off":
        return None
    return min(weight_bytes if setting == "weights" else int(setting), figures.recommended)


def command_buffer_variables(figures: DeviceFigures) -> dict[str, str]:
    """Returns variables for MLX, which reads them when it is imported. Empty unless the system is macOS."""
    if figures.system != "darwin":
        return {}
    # MLX sends work to the GPU after 40 to 50 operations or megabytes, and waits more often than needed. Reported: 5 to
    # 57 % faster decoding with more (mlx#4521, vllm-metal#637). 2,000 MB cost memory at long prompts.
    megabytes = 400 if figures.total < 96 * 1024**3 else 1000
    return {"MLX_MAX_OPS_PER_BUFFER": "1000", "MLX_MAX_MB_PER_BUFFER": str(megabytes)}


def longest_context(figures: DeviceFigures, needs: LoadNeeds) -> int | None:
    """Returns the tokens that fit beside weights that are not loaded yet; None if unknown."""
    usable = usable_bytes(figures)
    if usable is None or not needs.token_bytes:
        return None
    return max(0, int(KV_SHARE * (usable - needs.weight_bytes))) // needs.token_bytes


def load_refusal(figures: DeviceFigures, needs: LoadNeeds) -> str | None:
    """Returns why a model cannot be loaded, for people; None if it can."""
    usable, needed = usable_bytes(figures), needs.least_bytes
    if usable is None or needed <= usable:
        return None
    return (
        f"it needs {needed / GB:.1f} GB, {needs.weight_bytes / GB:.1f} GB for its weights and "
        f"{needs.least_state_bytes / GB:.1f} GB for a context of {LEAST_CONTEXT_TOKENS:,} tokens. "
        f"{max(0, usable) / GB:.1f} GB can be used: {memory_in_words(figures)}. The longest context that would fit has "
        f"{longest_context(figures, needs) or 0:,} tokens. {_advice(figures, needed)}"
    )


def could_fit(figures: DeviceFigures, needs: LoadNeeds) -> bool:
    """True if only other programs are in the way."""
    return needs.least_bytes <= _empty_bytes(figures)


def memory_in_words(figures: DeviceFigures) -> str:
    if figures.kind == "cuda" and figures.card_total is not None and figures.card_free is not None:
        return f"{figures.card_free / GB:.1f} GB of the card's {figures.card_total / GB:.1f} GB are free"
    free = "an unknown part" if figures.free is None else f"{figures.free / GB:.1f} GB"
    words = f"{free} of {figures.total / GB:.1f} GB is free"
    if figures.recommended is not None:
        words += f", and Metal recommends at most {figures.recommended / GB:.1f} GB"
    return words


def with_default_limit(figures: DeviceFigures) -> DeviceFigures:
    """Returns the figures with the limit that Metal has by default, unless it was read."""
    if figures.kind != "metal" or figures.recommended is not None:
        return figures
    share = 2 / 3 if figures.total < LARGE_MAC_BYTES else 3 / 4
    return replace(figures, recommended=int(share * figures.total))


def without_programs(figures: DeviceFigures) -> DeviceFigures:
    """Returns the figures if nothing ran on the machine."""
    return replace(figures, free=figures.total, card_free=figures.card_total, active=0, buffers=0)


def with_raised_limit(figures: DeviceFigures) -> DeviceFigures:
    """Returns the figures with Metal's limit raised to all memory but the part that macOS needs."""
    if figures.recommended is None:
        return figures
    most = figures.total - max(MACOS_BYTES, int(SYSTEM_SHARE * figures.total))
    return replace(figures, recommended=max(figures.recommended, most // MIB * MIB))


def raising(raised: DeviceFigures) -> str:
    """How to, for people."""
    return f"until the next restart: sudo sysctl iogpu.wired_limit_mb={(raised.recommended or 0) // MIB}"


def _advice(figures: DeviceFigures, needed: int) -> str:
    smaller = "Choose a smaller or more strongly quantized model"
    if figures.kind == "cuda":
        return f"{smaller}, or free memory of the card."
    raised = with_raised_limit(figures)
    if needed > _empty_bytes(raised):
        return f"{smaller}."
    free = usable_bytes(replace(figures, recommended=None))
    close = "close other programs" if free is not None and needed > free else ""
    if figures.recommended is None or needed <= figures.recommended - figures.active:
        return f"{smaller}, or {close}."
    return f"{smaller}, or {close}{close and ' and '}raise Metal's limit {raising(raised)}"


def _empty_bytes(figures: DeviceFigures) -> int:
    if figures.kind == "cuda" and figures.card_total is not None:
        return figures.card_total
    return min(figures.recommended or figures.total, figures.total - int(SYSTEM_SHARE * figures.total))
