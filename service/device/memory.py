from math import ceil

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

# Bytes to spare if memory is unknown.
UNLIMITED = 2**60

MIB = 1024**2
GB = 10**9


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


def longest_context(figures: DeviceFigures, weight_bytes: int, token_bytes: int) -> int | None:
    """Returns the tokens that fit beside weights that are not loaded yet; None if unknown."""
    usable = usable_bytes(figures)
    if usable is None or not token_bytes:
        return None
    return max(0, int(KV_SHARE * (usable - weight_bytes))) // token_bytes


def load_refusal(figures: DeviceFigures, weight_bytes: int, token_bytes: int) -> str | None:
    """Returns why a model cannot be loaded, for people; None if it can."""
    usable = usable_bytes(figures)
    state_bytes = ceil(LEAST_CONTEXT_TOKENS * token_bytes / KV_SHARE)
    needed = weight_bytes + state_bytes
    if usable is None or needed <= usable:
        return None
    longest = longest_context(figures, weight_bytes, token_bytes) or 0
    return (
        f"it needs {needed / GB:.1f} GB, {weight_bytes / GB:.1f} GB for its weights and {state_bytes / GB:.1f} GB for "
        f"a context of {LEAST_CONTEXT_TOKENS:,} tokens. {max(0, usable) / GB:.1f} GB can be used: "
        f"{memory_in_words(figures)}. The longest context that would fit has {longest:,} tokens. "
        f"{_advice(figures, needed)}"
    )


def memory_in_words(figures: DeviceFigures) -> str:
    if figures.kind == "cuda" and figures.card_total is not None and figures.card_free is not None:
        return f"{figures.card_free / GB:.1f} GB of the card's {figures.card_total / GB:.1f} GB are free"
    free = "an unknown part" if figures.free is None else f"{figures.free / GB:.1f} GB"
    words = f"{free} of {figures.total / GB:.1f} GB is free"
    if figures.recommended is not None:
        words += f", and Metal recommends at most {figures.recommended / GB:.1f} GB"
    return words


def with_raised_limit(figures: DeviceFigures) -> DeviceFigures:
    """Returns the figures after Metal's limit was raised as far as macOS can bear."""
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
    return min(figures.recommended or figures.total, figures.total - int(SYSTEM_SHARE * figures.total))
