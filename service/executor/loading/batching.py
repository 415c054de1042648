"""mlx-lm pads the prompts of a batch to one length. Some models have state that cannot be merged, some fail with two
rows, and some compute wrong values behind padding. No config shows this."""

import logging
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from service.executor.loading.cache_kinds import can_merge, is_recurrent
from service.executor.loading.failures import advice, one_line
from service.models.errors import InvalidModel

log = logging.getLogger(__name__)

SHORT, LONG = 5, 17
STEPS = 2

# The largest mean error of log-probabilities, in standard deviations of the row. Measured on f32: correct families stay
# below 0.0001, wrong ones are at 0.01 to 1. 16-bit and quantized weights have more noise.
TOLERANCE_F32 = 0.002
TOLERANCE_16_BIT = 0.1

# Prompts longer than this are not tried: a model that needs them runs one sequence at a time.
LONGEST_TRIAL = 4096

Rows = list[tuple[mx.array, int]]


class Batching(msgspec.Struct, frozen=True):
    """`padded`: prompts may be read in the batch, too."""

    size: int
    possible: bool = True
    padded: bool = True
    reason: str = ""


def try_batching(model: Any, size: int) -> Batching:
    """Compares a short prompt next to a longer one with the short prompt alone, in about ten forward passes. Raises
    what the model raises when it runs alone."""
    shift = _dense_reach(model)
    within = shift <= LONGEST_TRIAL
    short, long = _prompt(shift * within + SHORT), _prompt(shift * within + LONG)
    alone = _alone(model, short)
    tolerance = _tolerance(model)
    if not can_merge(model):
        fault = "the state of two sequences cannot be merged"
    elif not within:
        fault = f"its sparse attention leaves nothing out before {shift} tokens, which is too long to try"
    else:
        fault = _fault(lambda: _beside(model, short, long, padded=False), alone, tolerance)
    if fault:
        return Batching(1, possible=False, reason=fault)
    padded = not is_recurrent(model) and not _fault(lambda: _beside(model, short, long, padded=True), alone, tolerance)
    return Batching(size, padded=padded)


def _fault(run: Callable[[], Rows], alone: Rows, tolerance: float) -> str:
    try:
        rows = run()
    except Exception as exc:  # model files raise any exception
        log.debug("A batch of two failed", exc_info=exc)
        return f"a batch of two fails ({type(exc).__name__}: {' '.join(str(exc).split())[:80]})"
    for (row, token), (expected, expected_token) in zip(rows, alone, strict=True):
        error = _error(row, expected)
        if not error <= tolerance:
            return f"a batch of different lengths changes its answers (by {error:.2g} of their spread)"
        if token != expected_token:  # a tie within the tolerance: later rows cannot be compared
            break
    return ""


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


def _alone(model: Any, prompt: list[int]) -> Rows:
    cache = _read(model, prompt[:-1])
    rows: Rows = []
    token = prompt[-1]
    for _ in range(STEPS):
        logits = model(mx.array([[token]]), cache=cache)[0, -1]
        row = logits - mx.logsumexp(logits)
        drawn: Any = mx.argmax(row)
        token = int(drawn.item())
        rows.append((row, token))
    return rows


def _beside(model: Any, short: list[int], long: list[int], *, padded: bool) -> Rows:
    """Returns the rows of the short prompt. Unless `padded`, prompts are read alone up to their last token."""
    generator: Any = BatchGenerator(
        model, max_tokens=STEPS, stream=mx.default_stream(mx.default_device()), prefill_step_size=LONGEST_TRIAL
    )
    try:
        if padded:
            first, _ = generator.insert([short, long])
        else:
            first, _ = generator.insert(
                [short[-1:], long[-1:]],
                caches=[_read(model, prompt[:-1]) for prompt in (short, long)],
                all_tokens=[short[:-1], long[:-1]],
            )
        rows: Rows = []
        while len(rows) < STEPS:
            _, responses = generator.next()
            rows += [(each.logprobs, each.token) for each in responses if each.uid == first]
        return rows
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
