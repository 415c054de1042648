"""Keeps one sequence to its grammar: logits of tokens that cannot come next become minus infinity."""

import math
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from service.executor.messages import Grammar


class Constraint:
    """The last of a sequence's logits processors. Ends the sequence in `error` where the grammar cannot be followed:
    a limit of llguidance's was met.

    A processor builds step t of a pipeline whose step t-1 may still be computed, and the mask depends on the token
    drawn there. So the order matters: the model's step t is started first; then the token is waited for, and the mask
    found, while the device works. Only the draw comes behind it.
    """

    def __init__(self, grammar: Grammar) -> None:
        self.error = ""
        self._matcher = grammar.matcher.deep_copy()
        self._bits = allocate_token_bitmask(1, grammar.tokens)
        self._begun = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """`tokens` ends with the last of the prompt at first, then with the token drawn in the step before."""
        last = tokens[-1:]
        start: Any = mx.async_eval
        start(last)
        start(logits)
        if self._begun and not self.error:
            self._matcher.consume_token(_id(last))
        self._begun = True
        if not self.error:
            fill_next_token_bitmask(self._matcher, self._bits)
            self.error = self._matcher.get_error()
        return logits if self.error else _masked(logits, self._bits)


def _id(token: mx.array) -> int:
    return int(np.asarray(token)[0])


def _masked(logits: mx.array, bits: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> mx.array:
    """`bits` has one row of 32 tokens a word; tokens that no bit is for stay out."""
    if mx.default_device() == mx.gpu and mx.metal.is_available():
        from llguidance.mlx import apply_token_bitmask

        return apply_token_bitmask(logits, bits)
    allowed = np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little", count=logits.shape[-1])
    return mx.where(mx.array(allowed.view(np.bool_)), logits, -math.inf)
