from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from service.executor.engine.run import Drawn, Run
from service.executor.engine.sampling import greedy
from service.executor.loading.batching import Batching
from service.executor.loading.shared_prefix import Beginning, plain, shareable
from service.executor.prefix.tree import common_length
from service.executor.scheduling.protocols import TokenChances


class Batch:
    """Decodes with mlx-lm's `BatchGenerator`, which also reads up to `last_tokens` of each prompt."""

    def __init__(self, model: Any, end_tokens: set[int], batching: Batching, *, last_tokens: int) -> None:
        self._model = model
        self._runs: dict[int, Run] = {}
        self._beginning = None if batching.shares_from is None else Beginning(batching.shares_from)
        self._generator: Any = BatchGenerator(
            model,
            stop_tokens=[[token] for token in sorted(end_tokens)],
            sampler=greedy,
            completion_batch_size=batching.size,
            prefill_batch_size=batching.size,
            prefill_step_size=last_tokens,
            stream=mx.default_stream(mx.default_device()),
        )

    @property
    def nbytes(self) -> int:
        return int(self._generator.prompt_cache_nbytes)

    def insert(self, runs: list[Run]) -> None:
        """Takes the `cache` of each run."""
        uids = self._generator.insert(
            [run.tokens[run.read :] for run in runs],
            max_tokens=[run.left for run in runs],
            caches=self._caches(runs),
            all_tokens=[run.tokens[: run.read] for run in runs],
            samplers=[run.sampler for run in runs],
            logits_processors=[run.processors for run in runs],
        )
        for run, uid in zip(runs, uids, strict=True):
            run.draw_next_at(len(run.tokens))
            run.uid, run.cache = uid, None
            self._runs[uid] = run

    def _caches(self, runs: list[Run]) -> list[Any]:
        if self._beginning is None:
            return [run.cache for run in runs]
        self._beginning.length = _common_beginning([*self._runs.values(), *runs])
        return [shareable(run.cache or make_prompt_cache(self._model), self._beginning) for run in runs]

    def remove(self, run: Run) -> None:
        self._generator.remove([run.uid])
        self._forget(run)

    def take(self, run: Run) -> None:
        self.restore(run)
        self.remove(run)

    def restore(self, run: Run) -> None:
        self._give_back(run, *self._generator.extract_cache([run.uid])[run.uid])

    def step(self) -> list[Drawn]:
        _, responses = self._generator.next()
        return [self._drawn(response) for response in responses]

    def close(self) -> None:
        self._generator.close()

    def _drawn(self, response: Any) -> Drawn:
        run = self._runs[response.uid]
        chances = None
        if run.sequence.request.logprobs is not None:
            chances = token_chances(response.logprobs, response.token, run.sequence.request.logprobs)
        if response.finish_reason is not None:
            self._forget(run)
            self._give_back(run, response.prompt_cache, response.all_tokens)
        return Drawn(run, response.token, response.finish_reason, chances)

    def _give_back(self, run: Run, cache: list[Any], tokens: list[int]) -> None:
        run.cache, run.tokens, run.read = plain(cache), [*tokens, *run.tokens[len(tokens) :]], len(tokens)

    def _forget(self, run: Run) -> None:
        if run.uid is not None:
            del self._runs[run.uid]
        run.uid = None


def _common_beginning(runs: list[Run]) -> int:
    """Returns how many tokens all have read alike. Callers share nothing."""
    if len({run.sequence.request.caller for run in runs}) > 1:
        return 0
    first, *others = (run.tokens[: run.read] for run in runs)
    return min([common_length(first, other) for other in others], default=0)


def token_chances(logprobs: mx.array, token: int, top: int) -> TokenChances:
    """`logprobs` is one evaluated row, `[vocabulary]`. Forbidden tokens are not in `top`."""
    row = _as_float32(logprobs)
    if top == 0:
        return TokenChances(float(row[token]), ())
    best = np.argpartition(row, -top)[-top:]
    best = best[np.argsort(-row[best], kind="stable")]
    return TokenChances(float(row[token]), tuple((int(i), float(row[i])) for i in best if row[i] > -np.inf))


def _as_float32(row: mx.array) -> Any:
    # NumPy reads the row in place. An MLX operation would wait for the next token, which is being computed.
    if row.dtype != mx.bfloat16:
        return np.asarray(row, dtype=np.float32)
    # NumPy has no bfloat16, which is the upper half of a float32.
    buffer: Any = row
    return (np.frombuffer(memoryview(buffer), np.uint16).astype(np.uint32) << 16).view(np.float32)
