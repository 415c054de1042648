"""The `Engine` on mlx-lm's `BatchGenerator`. Every call comes from the one thread that owns MLX."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import BatchGenerator

from service.executor.messages import Sequence
from service.executor.sampling import greedy, make_logits_processors, make_sampler
from service.executor.scheduler import Token, TokenChances

CHUNK_TOKENS_ON_CPU = 128
"""Measured: chunks of 64 to 128 tokens read a prompt 1.4 times faster than chunks of 2048."""

CHUNK_TOKENS_ON_GPU = 512
"""Large enough to fill the device, small enough that running sequences go on in between."""


def default_chunk_tokens() -> int:
    return CHUNK_TOKENS_ON_CPU if mx.default_device() == mx.cpu else CHUNK_TOKENS_ON_GPU


class BatchEngine:
    """`model` and `end_tokens` (end-of-text ids) are mlx-lm's; a prompt is read `chunk_tokens` at a time."""

    def __init__(self, model: Any, end_tokens: set[int], *, max_concurrency: int, chunk_tokens: int) -> None:
        self._model = model
        self._end_tokens = sorted(end_tokens)
        self._max_concurrency = max_concurrency
        self._chunk_tokens = chunk_tokens
        self._start()

    def insert(self, sequence: Sequence) -> None:
        prompt = sequence.prompt.tokens
        (uid,) = self._batch.insert(
            [prompt],
            max_tokens=[sequence.max_tokens],
            samplers=[make_sampler(sequence.sampling)],
            logits_processors=[make_logits_processors(sequence.sampling, len(prompt))],
        )
        self._uids[sequence.id] = uid
        self._sequences[uid] = sequence

    def remove(self, sequence: int) -> None:
        uid = self._uids.pop(sequence, None)
        if uid is not None:
            del self._sequences[uid]
            self._batch.remove([uid])

    def step(self) -> list[Token]:
        _, responses = self._batch.next()
        return [self._token(response) for response in responses]

    def reset(self) -> None:
        self._batch.close()
        self._start()
        mx.clear_cache()

    def close(self) -> None:
        self._batch.close()

    def _start(self) -> None:
        self._uids: dict[int, int] = {}
        self._sequences: dict[int, Sequence] = {}
        self._batch: Any = BatchGenerator(
            self._model,
            stop_tokens=[[token] for token in self._end_tokens],
            sampler=greedy,
            completion_batch_size=self._max_concurrency,
            prefill_batch_size=self._max_concurrency,
            prefill_step_size=self._chunk_tokens,
            stream=mx.default_stream(mx.default_device()),
        )

    def _token(self, response: Any) -> Token:
        sequence = self._sequences[response.uid]
        chances = None
        if sequence.request.logprobs is not None:
            chances = token_chances(response.logprobs, response.token, sequence.request.logprobs)
        if response.finish_reason is not None:
            del self._sequences[response.uid]
            del self._uids[sequence.id]
        return Token(sequence.id, response.token, response.finish_reason, chances)


def token_chances(logprobs: mx.array, token: int, top: int) -> TokenChances:
    """Of one row `[vocabulary]`, evaluated already. Read with NumPy, in place: an MLX operation would wait behind the
    next token, which is being computed by now."""
    row = np.asarray(logprobs if logprobs.dtype == mx.float32 else logprobs.astype(mx.float32))
    if top == 0:
        return TokenChances(float(row[token]), ())
    best = np.argpartition(row, -top)[-top:]
    best = best[np.argsort(-row[best], kind="stable")]
    return TokenChances(float(row[token]), tuple((int(i), float(row[i])) for i in best))
