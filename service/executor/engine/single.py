from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from service.executor.engine.batch import token_chances
from service.executor.engine.run import Drawn, Run
from service.executor.engine.solo import STEPS_BETWEEN_CLEARING
from service.executor.loading.softmax import log_softmax
from service.executor.scheduling.protocols import EndReason


class Single:
    """Decodes one run of a model that cannot batch. The first step reads the rest of its prompt."""

    def __init__(self, model: Any, run: Run, *, end_tokens: set[int]) -> None:
        self.run = run
        self._model = model
        self._cache: list[Any] = run.cache or make_prompt_cache(model)
        self._end_tokens = end_tokens
        self._ahead: tuple[mx.array, mx.array] | None = None  # the next token and its row, being computed
        self._history = mx.array(run.tokens)
        self._steps = 0
        run.tokens, run.cache = list(run.tokens), self._cache

    def step(self) -> list[Drawn]:
        run = self.run
        token, row = self._ahead or self._draw(mx.array(run.tokens[run.read :]))
        # Nothing is computed ahead of the first token, so that it arrives at once (see `Solo.step`).
        self._ahead = self._draw(token) if run.left > 1 and self._steps > 0 else None
        if self._ahead is not None:
            start: Any = mx.async_eval
            start(*self._ahead)
        drawn = int(_number(token))
        end: EndReason | None = "stop" if drawn in self._end_tokens else "length" if run.left == 1 else None
        wanted = run.sequence.request.logprobs
        chances = None if wanted is None else token_chances(row, drawn, wanted)
        run.extend([drawn])
        self._steps += 1
        if self._steps % STEPS_BETWEEN_CLEARING == 0:
            mx.clear_cache()
        if end is not None:
            self._ahead = None
        return [Drawn(run, drawn, end, chances)]

    def leave(self) -> None:
        self._ahead = None

    def _draw(self, inputs: mx.array) -> tuple[mx.array, mx.array]:
        """Reads `[length]` tokens; returns the next one, `[1]`, and its log-probabilities, `[vocabulary]`."""
        logits = self._model(inputs[None], cache=self._cache)[:, -1]
        if self.run.processors and self.run.read + inputs.size > self._history.size:
            self._history = mx.concatenate([self._history, inputs])
        self.run.read += inputs.size
        for process in self.run.processors:
            logits = process(self._history, logits)
        rows = log_softmax(logits)
        return self.run.sampler(rows), rows[0]


def _number(token: mx.array) -> int:
    value: Any = token.item()
    return int(value)
