"""mlx-lm pads the prompts of a batch to one length. Some models have state that cannot be merged, some fail with two
rows, and some compute wrong values behind padding. No config shows this."""

import logging
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import ArraysCache, make_prompt_cache

from service.device.figures import DeviceKind
from service.executor.loading.cache_kinds import can_merge, is_recurrent, leaves
from service.executor.loading.cpu_attention import CountedAttention, route_attention
from service.executor.loading.device import device_kind
from service.executor.loading.failures import advice, one_line
from service.executor.loading.shared_prefix import Beginning, SharedPrefixCache, least_saved_tokens, shareable
from service.models.errors import InvalidModel

log = logging.getLogger(__name__)

# Tokens of the two prompts. Where prompts are padded, the batch reads the short one and the last tokens of the long.
SHORT, LONG = 6, 11
UNREAD, UNREAD_LONG = SHORT, 5

# Tokens that two prompts behind one beginning have left to read, the last one alone.
LAST = 3

# The largest mean error of log-probabilities, in standard deviations of the row. Measured on f32 on a CPU: correct
# families stay below 0.0001, wrong ones are at 0.01 to 1. 16-bit and quantized weights have more noise, and so have
# GPUs that multiply f32 as TF32, with the mantissa of f16.
TOLERANCE_F32 = 0.002
TOLERANCE_16_BIT = 0.1

# Prompts longer than this are not tried: a model that needs them runs one sequence at a time.
LONGEST_TRIAL = 4096


class Batching(msgspec.Struct, frozen=True):
    """`padded`: prompts may be read in the batch, too. A common beginning of all prompts is kept once if this saves
    `shares_from` tokens a step (None: never)."""

    size: int
    possible: bool = True
    padded: bool = True
    reason: str = ""
    shares_from: int | None = None


def try_batching(model: Any, size: int) -> Batching:
    """Compares a short prompt next to a longer one with the short prompt alone, in nine forward passes if there is
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

    tolerance = tolerance_for(device_kind(), exact=_is_f32(model))

    def fault(unread: int, unread_long: int) -> str:
        return _fault(lambda: _beside(model, short, long, unread, unread_long), alone, tolerance)

    padded = not is_recurrent(model) and not fault(UNREAD, UNREAD_LONG)
    reason = "" if padded else fault(1, 1)
    if reason:
        return Batching(1, possible=False, reason=reason)
    if device_kind() != "cpu":
        # It was not run on a GPU. MLX computes products of few rows and a long inner dimension on few of its cores.
        return Batching(size, padded=padded)
    route_attention(model)
    states = [_read(model, prompt[:-LAST]) for prompt in (short, long)]
    shares_from = least_saved_tokens(states[0])
    if shares_from is not None and _fault(lambda: _behind(model, short, long, states), alone, tolerance):
        shares_from = None
    return Batching(size, padded=padded, shares_from=shares_from)


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


def tolerance_for(kind: DeviceKind, *, exact: bool) -> float:
    return TOLERANCE_F32 if exact and kind == "cpu" else TOLERANCE_16_BIT


def _is_f32(model: Any) -> bool:
    weights: Any = tree_flatten(model.parameters())
    return all(array.dtype == mx.float32 for _, array in weights)


def _prompt(length: int) -> list[int]:
    return [1 + (7 * i + 3) % 90 for i in range(length)]


def _alone(model: Any, prompt: list[int]) -> mx.array:
    logits = model(mx.array([prompt]), cache=make_prompt_cache(model))[0, -1]
    row: mx.array = logits - mx.logsumexp(logits)
    mx.eval(row)
    return row


def _behind(model: Any, short: list[int], long: list[int], states: list[list[Any]]) -> mx.array:
    """Returns the row of the short prompt. Both have their `LAST` tokens left."""
    beginning = Beginning(0, length=len(short) - LAST)
    rows = [shareable(state, beginning) for state in states]
    batch = [layers[0].merge(list(layers)) for layers in zip(*rows, strict=True)]
    watched = CountedAttention()
    route_attention(model, watched)
    try:
        for part in (slice(-LAST, -1), slice(-1, None)):
            logits = model(mx.array([short[part], long[part]]), cache=batch)[0, -1]
    finally:
        route_attention(model)
    found = [leaf for leaf in leaves(batch) if not isinstance(leaf, ArraysCache)]
    fetches = [leaf.fetches for leaf in found if isinstance(leaf, SharedPrefixCache)]
    if any(count != 2 for count in fetches) or (watched.own, watched.calls) != (2 * len(fetches), 2 * len(found)):
        # The row of so short a prefix might hardly differ in 16 bits.
        raise ValueError("a layer attends to the state of another, or in its own way")
    row: mx.array = logits - mx.logsumexp(logits)
    return row


def _beside(model: Any, short: list[int], long: list[int], unread: int, unread_long: int) -> mx.array:
    """Returns the row of the short prompt. The batch reads the `unread` last tokens of the prompts, and pads them."""
    generator: Any = BatchGenerator(
        model, max_tokens=1, stream=mx.default_stream(mx.default_device()), prefill_step_size=LONGEST_TRIAL
    )
    ends = [(short, len(short) - unread), (long, len(long) - unread_long)]
    try:
        first, _ = generator.insert(
            [prompt[end:] for prompt, end in ends],
            caches=[_read(model, prompt[:end]) if end else None for prompt, end in ends],
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
