import math
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from service.executor.loading.device import device_kind
from service.executor.scheduling.messages import Grammar


class Constraint:
    """Masks logits by a sequence's grammar, as the last of its logits processors. Sets `error` if llguidance exceeds a
    limit."""

    def __init__(self, grammar: Grammar, prompt_tokens: int) -> None:
        self.error = ""
        self._matcher = grammar.matcher.deep_copy()
        self._vocabulary = grammar.tokens
        self._followed = prompt_tokens  # number of the sequence's tokens

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """`tokens` are all so far, prompt first, `[length]`; `logits` are `[1, vocabulary]`."""
        # The mask depends on the last token, which may still be computed. The model's next step is started first, so
        # that the device works while this thread waits for the token and finds the mask.
        drawn = tokens[self._followed :]
        _start(drawn, logits)
        self._consume(_ids(drawn))
        return self._held(logits, [])

    def follow(self, tokens: list[int]) -> None:
        self._consume(tokens[self._followed :])

    def forced(self) -> list[int]:
        """Returns no tokens if there is a choice."""
        return [] if self.error else list(self._matcher.compute_ff_tokens())

    def permitted(self, draft: list[int]) -> list[int]:
        return [] if self.error else draft[: self._matcher.validate_tokens(draft)]

    def look_ahead(self, inputs: mx.array, logits: mx.array, *, read: int) -> mx.array:
        """Masks `logits` `[length, vocabulary]`, a row after each of `inputs` `[length]`, which end the first `read`
        tokens. Does not advance: inputs may be wrong guesses."""
        _start(inputs, logits)
        ahead = read - self._followed
        return self._held(logits, _ids(inputs)[len(inputs) - ahead :])

    def _consume(self, tokens: list[int]) -> None:
        self._followed += len(tokens)
        for token in tokens:
            if not self.error:
                self._take(token)
                self.error = self._kind_of_error()

    def _take(self, token: int) -> int:
        """Returns 0 after the grammar's end, else 1."""
        if self._matcher.is_stopped():
            return 0
        self._matcher.consume_token(token)
        return 1

    def _kind_of_error(self) -> str:
        # After the colon llguidance puts the whole grammar and the text so far.
        return str(self._matcher.get_error()).partition(":")[0]

    def _held(self, logits: mx.array, ahead: list[int]) -> mx.array:
        if self.error:
            return logits
        bits = allocate_token_bitmask(logits.shape[0], self._vocabulary)
        first = logits.shape[0] - len(ahead)  # 0 if no row is for the next token
        if first > 0:
            fill_next_token_bitmask(self._matcher, bits, 0)
        taken = 0
        for row, token in enumerate(ahead, first):
            taken += self._take(token)
            fill_next_token_bitmask(self._matcher, bits, row)
        self.error = self._kind_of_error()
        if self.error:
            return logits
        self._matcher.rollback(taken)
        return _masked(logits, bits)


def _start(*arrays: mx.array) -> None:
    start: Any = mx.async_eval
    start(*arrays)


def _ids(tokens: mx.array) -> list[int]:
    return [int(token) for token in np.asarray(tokens)]


def _masked(logits: mx.array, bits: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> mx.array:
    """`bits` hold 32 tokens per word; tokens without a bit are masked."""
    if device_kind() == "metal":
        from llguidance.mlx import apply_token_bitmask

        return apply_token_bitmask(logits, bits)
    allowed = np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little", count=logits.shape[-1])
    return mx.where(mx.array(allowed.view(np.bool_)), logits, -math.inf)
