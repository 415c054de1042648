"""mlx-lm pads the prompts of a batch to one length. Some models have state that cannot be merged, some fail with two
rows, and some compute wrong values behind padding. No config shows this."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from service.executor.loading.cache_kinds import can_merge, is_recurrent
from service.executor.loading.decode_attention import route_attention
from service.executor.loading.failures import advice, one_line
from service.executor.loading.shared_prefix import Beginning, least_saved_bytes, shareable
from service.models.errors import InvalidModel

log = logging.getLogger(__name__)

# Tokens of the two prompts. Where prompts are padded, the batch reads the short one and the last tokens of the long.
SHORT, LONG = 6, 11
UNREAD, UNREAD_LONG = 4, 5

# The largest mean error of log-probabilities, in standard deviations of the row. Measured on f32: correct families stay
# below 0.0001, wrong ones are at 0.01 to 1. 16-bit and quantized weights have more noise.
TOLERANCE_F32 = 0.002
TOLERANCE_16_BIT = 0.1

# Prompts longer than this are not tried: a model that needs them runs one sequence at a time.
LONGEST_TRIAL = 4096


class Batching(msgspec.Struct, frozen=True):
    """`padded`: prompts may be read in the batch, too. A common beginning of all prompts is kept once if this saves a
    layer `shares_from` bytes a step (None: never)."""

    size: int
    possible: bool = True
    padded: bool = True
    reason: str = ""
    shares_from: int | None = None


def try_batching(model: Any, size: int) -> Batching:
    """Compares a short prompt next to a longer one with the short prompt alone, in six forward passes if there is
    nothing to find. Raises what the model raises when it runs alone."""
    shift = _dense_reach(model)
    within = shift <= LONGEST_TRIAL
    short, long = _prompt(shift * within + SHORT), _prompt(shift * within + LONG)
    alone = _alone(model, short)
    if not can_merge(model):
        return Batching(1, possible=False, reason="the state of two sequences cannot be merged")
    if not within:
        reason = f"its sparse attention leaves nothing out before {shift} tokens, which is too long to try"
        return Batching(1, possible=False, reason=reason)

    reason = ""
    least = least_saved_bytes() if route_attention(model) else None
    for padded in [False] if is_recurrent(model) else [True, False]:
        unread = (UNREAD, UNREAD_LONG) if padded else (1, 1)
        for shares_from in [None] if least is None else [least, None]:
            beside = partial(_beside, model, short, long, unread, shares=shares_from is not None)
            reason = _fault(beside, alone, _tolerance(model))
            if not reason:
                return Batching(size, padded=padded, shares_from=shares_from)
    return Batching(1, possible=False, reason=reason)


def _fault(run: Callable[[], mx.array], alone: mx.array, tolerance: float) -> str:
    try:
        error = _error(run(), alone)
    except Exception as exc:  # model files raise any exception
        log.debug("A batch of two failed", exc_info=exc)
        return f"a batch of two fails ({type(exc).__name__}: {' '.join(str(exc).split())[:80]})"
    if error <= tolerance:
        return ""
    return f"a batch of different lengths changes its answers (by {error:.2g} of their spread)"


def _error(row: mx.array, expected: mx.array) -> float:
    row, expected = row.astype(mx.float32), expected.astype(mx.float32)
    error: Any = mx.abs(row - expected).mean() / mx.maximum(mx.std(expected), 1e-6)
    return float(error.item())


def _tolerance(model: Any) -> float:
    weights: Any = tree_flatten(model.parameters())
    plain = all(array.dtype == mx.float32 for _, array in weights)
    return TOLERANCE_F32 if plain else TOLERANCE_16_BIT


def _prompt(length: int) -> list[int]:
    return [1 + (7 * i + 3) % 90 for i in range(length)]


def _alone(model: Any, prompt: list[int]) -> mx.array:
    logits = model(mx.array([prompt]), cache=make_prompt_cache(model))[0, -1]
    row: mx.array = logits - mx.logsumexp(logits)
    mx.eval(row)
    return row


def _beside(model: Any, short: list[int], long: list[int], unread: tuple[int, int], *, shares: bool) -> mx.array:
    """Returns the row of the short prompt. The batch reads the `unread` last tokens of the prompts, and pads them."""
    generator: Any = BatchGenerator(
        model, max_tokens=1, stream=mx.default_stream(mx.default_device()), prefill_step_size=LONGEST_TRIAL
    )
    ends = [(prompt, len(prompt) - last) for prompt, last in zip((short, long), unread, strict=True)]
    beginning = Beginning(0, length=ends[0][1] if shares else 0)  # the long prompt begins with the short one
    try:
        first, _ = generator.insert(
            [prompt[end:] for prompt, end in ends],
            caches=[shareable(_read(model, prompt[:end]), beginning) for prompt, end in ends],
            all_tokens=[prompt[:end] for prompt, end in ends],
        )
        rows: list[mx.array] = []
        while not rows:
            _, responses = generator.next()
            rows += [response.logprobs for response in responses if response.uid == first]
        return rows[0]
    finally:
        generator.close()


def _read(model: Any, tokens: list[int]) -> list[Any]:
    cache = make_prompt_cache(model)
    model(mx.array([tokens]), cache=cache)
    mx.eval([layer.state for layer in cache])
    return list(cache)


def _dense_reach(model: Any) -> int:
    """Returns the tokens up to which block-sparse attention is dense, or 0."""
    modules: Any = model.modules()
    sparse = [each for each in modules if getattr(each, "index_topk_blocks", None)]
    return max((each.index_topk_blocks * each.index_block_size for each in sparse), default=0)


def open_batching(model: Any, size: int, name: str) -> Batching:
    """Raises `InvalidModel` if the model cannot run at all."""
    try:
        batching = try_batching(model, size)
    except Exception as exc:
        raise InvalidModel(f"it was read but cannot run: {one_line(exc)}. {advice(exc)}") from exc
    if not batching.possible:
        log.warning("The model %s answers one request at a time: %s", name, batching.reason)
    elif not batching.padded:
        log.info("Prompts of the model %s are read one at a time, and decoded side by side", name)
    return batching
