"""Lanes must not change states and answers, and read each token once."""

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from service.executor.engine.chunks import ChunkSizes
from service.executor.engine.lanes import LEAST_TOKENS, Lanes
from service.executor.prefix.cache import NoPrefixCache
from service.executor.prefix.state import PromptStates
from tests.executor.engine.test_passes import WatchedModel
from tests.executor.prefix.test_engine import CONFIGS, Harness, make_model

TOKENS = [(7 * i + 3) % 190 for i in range(3 * LEAST_TOKENS)]
PROMPT = 3 * TOKENS


@pytest.mark.parametrize("family", CONFIGS)
def test_lanes_leave_the_state_that_their_parts_leave_one_by_one(family: str) -> None:
    model, lanes = make_model(family), Lanes()
    expected, found = make_prompt_cache(model), make_prompt_cache(model)
    for _ in range(2):
        for start in range(0, len(TOKENS), LEAST_TOKENS):
            lanes.read(model, TOKENS[start : start + LEAST_TOKENS], expected, 1)
        lanes.read(model, TOKENS, found, 3)
    for one, other in zip(arrays(expected), arrays(found), strict=True):
        assert mx.array_equal(one, other)


def arrays(caches: list[Any]) -> list[mx.array]:
    leaves: Any = tree_flatten([layer.state for layer in caches])
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


def test_the_engine_reads_a_chunk_in_lanes_and_answers_alike() -> None:
    model = WatchedModel(make_model("llama"))
    alone, in_lanes = (Harness(model, NoPrefixCache(), chunks=ChunkSizes(64, lanes=lanes)) for lanes in (1, 2))
    expected = alone.run(PROMPT).tokens
    model.passes.clear()
    assert in_lanes.run(PROMPT).tokens == expected
    assert model.passes[:3] == [(1, 32), (1, 32), (1, len(PROMPT) - 64 - 1)]


def test_few_tokens_are_read_in_one_lane() -> None:
    model = WatchedModel(make_model("llama"))
    Lanes().read(model, TOKENS[: 2 * LEAST_TOKENS - 1], make_prompt_cache(model), 2)
    assert model.passes == [(1, 2 * LEAST_TOKENS - 1)]


def test_the_parts_of_a_kept_state_are_joined_before_the_lanes_begin() -> None:
    """Otherwise the second lane waits for the first."""
    model, first = make_model("llama"), len(PROMPT) // 2
    states, read = PromptStates(model), make_prompt_cache(model)
    Lanes().read(model, PROMPT, read, 1)
    parts = [(states.capture(read, *span), span[1] - span[0]) for span in ((0, first), (first, len(PROMPT)))]
    held: list[int] = []

    def watched(tokens: mx.array, cache: list[Any]) -> mx.array:
        held.append(mx.get_active_memory())
        return model(tokens, cache=cache)

    restored, before = states.restore(parts), mx.get_active_memory()
    Lanes().read(watched, TOKENS, restored, 2)
    assert held[0] - before >= sum(state.nbytes for state, _ in parts) / 2  # other tests' models may go meanwhile
