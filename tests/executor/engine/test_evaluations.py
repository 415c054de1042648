"""What MLX is told to compute, counted. On a GPU each evaluation is a round trip; on a CPU its time does not show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, make_prompt_cache

from service.executor.prefix.cache import NoPrefixCache
from service.executor.prefix.state import PromptStates
from tests.executor.prefix.test_engine import CHUNK, CONFIGS, OTHER, Harness, make_model


class Evaluations:
    waited = 0
    started = 0


@contextmanager
def counted() -> Iterator[Evaluations]:
    """Counts the calls of `mx.eval` and `mx.async_eval`, by mlx-lm too, and passes them on."""
    counts = Evaluations()
    wait, start = mx.eval, mx.async_eval

    def waiting(*arrays: Any) -> None:
        counts.waited += 1
        wait(*arrays)

    def starting(*arrays: Any) -> None:
        counts.started += 1
        call: Callable[..., None] = start
        call(*arrays)

    mx.eval, mx.async_eval = waiting, starting
    try:
        yield counts
    finally:
        mx.eval, mx.async_eval = wait, start


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_state_is_captured_and_written_in_one_evaluation_each(kind: str) -> None:
    model = make_model(kind)
    states = PromptStates(model)
    caches = make_prompt_cache(model)
    model(mx.array([OTHER]), cache=caches)
    with counted() as captured:
        state = states.capture(caches, 0, len(OTHER))
    with counted() as written:
        states.to_buffers(state)
    assert (captured.waited, captured.started) == (written.waited, written.started) == (1, 0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_prompt_takes_one_evaluation_a_chunk(kind: str) -> None:
    assert of_a_run(kind, prompt=5 * CHUNK).waited - of_a_run(kind, prompt=2 * CHUNK).waited == 3


class Watched:
    """A model that notes how many tokens its KV state has room for, at each call."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.rooms: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, inputs: mx.array, cache: list[Any]) -> Any:
        logits = self._model(inputs, cache=cache)
        if type(cache[0]) is KVCache:  # the batch, which answers, has its own
            self.rooms.append(cache[0].keys.shape[2])
        return logits


def test_the_state_of_a_prompt_is_allocated_once() -> None:
    model = Watched(make_model("llama"))
    harness = Harness(model, NoPrefixCache())
    model.rooms.clear()
    harness.run([token % 190 for token in range(2_000)], max_tokens=1)
    assert len(model.rooms) > 100
    assert len(set(model.rooms)) == 1


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_step_starts_the_next_token_and_waits_for_one_only(kind: str, together: int) -> None:
    long, short = (of_a_run(kind, together=together, answer=answer) for answer in (20, 8))
    assert (long.waited - short.waited, long.started - short.started) == (12, 12)


def of_a_run(kind: str, *, together: int = 1, prompt: int = CHUNK, answer: int = 1) -> Evaluations:
    harness = Harness(make_model(kind), NoPrefixCache())
    with counted() as counts:
        tokens = [token % 190 for token in range(prompt)]
        harness.finish(*[harness.start(tokens, max_tokens=answer) for _ in range(together)])
    return counts
