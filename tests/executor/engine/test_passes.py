"""The work of requests, counted in forward passes. Their times would show only on a GPU."""

from typing import Any

import mlx.core as mx
import pytest

from service.device.kv_estimate import SMALLEST_CHUNK
from service.executor.engine.chunks import LAST_CHUNKS, Attention, ChunkSizes
from service.executor.prefix.cache import PrefixCache
from service.executor.prefix.state import PromptStates
from service.executor.speculation.drafters import Drafters
from tests.executor.prefix.test_engine import A_LOT, CHUNK, OTHER, QUESTION, SYSTEM, Harness, make_model

ANSWER = 6


class WatchedModel:
    """Notes rows and tokens of each forward pass."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.passes: list[tuple[int, ...]] = []

    def __call__(self, inputs: mx.array, **arguments: Any) -> mx.array:
        self.passes.append(inputs.shape)
        logits: mx.array = self._model(inputs, **arguments)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def watched(**fields: Any) -> tuple[WatchedModel, Harness]:
    model = WatchedModel(make_model("llama"))
    harness = Harness(model, PrefixCache(PromptStates(model), A_LOT), **fields)
    model.passes.clear()
    return model, harness


def tails(tokens: int) -> list[list[int]]:
    return [[(seed * i + seed) % 190 for i in range(tokens)] for seed in (3, 5, 7, 9)]


# The last token is read by the first step, and mlx-lm computes one step ahead.
DECODED_IN_A_BATCH = [(4, 1)] * (1 + ANSWER)


def test_sub_agents_behind_a_known_beginning_are_one_batch() -> None:
    model, harness = watched()
    harness.run(SYSTEM + QUESTION)
    model.passes.clear()
    harness.finish(*[harness.start(SYSTEM + tail, max_tokens=ANSWER) for tail in tails(CHUNK)])
    assert model.passes == [(4, CHUNK - 1), *DECODED_IN_A_BATCH]


def test_sub_agents_read_an_unknown_beginning_once_and_are_one_batch() -> None:
    model, harness = watched()
    beginning = SYSTEM[: 2 * CHUNK + 10]
    harness.finish(*[harness.start(beginning + tail, max_tokens=ANSWER) for tail in tails(CHUNK)])
    assert model.passes == [(1, CHUNK), (1, CHUNK), (1, 10), (4, CHUNK - 1), *DECODED_IN_A_BATCH]


def test_the_last_few_tokens_of_a_beginning_are_read_in_the_batch() -> None:
    model, harness = watched()
    beginning = SYSTEM[: 2 * CHUNK + 2]
    harness.finish(*[harness.start(beginning + tail, max_tokens=ANSWER) for tail in tails(CHUNK)])
    assert model.passes == [(1, CHUNK), (1, CHUNK), (4, 2 + CHUNK - 1), *DECODED_IN_A_BATCH]


def test_a_beginning_of_one_chunk_is_read_once() -> None:
    model, harness = watched()
    beginning = SYSTEM[:CHUNK]
    harness.finish(*[harness.start(beginning + tail, max_tokens=ANSWER) for tail in tails(CHUNK - 1)])
    assert model.passes == [(1, CHUNK), (4, CHUNK - 2), *DECODED_IN_A_BATCH]


def test_an_answer_alone_reads_and_draws_each_token_once() -> None:
    drafters = Drafters(lookup=True)
    model, harness = watched(drafters=drafters)
    for prompt in (SYSTEM + QUESTION, SYSTEM + OTHER):
        model.passes.clear()
        guessed = drafters.experience.tally.drafted
        run = harness.run(prompt, max_tokens=ANSWER)
        guessed = drafters.experience.tally.drafted - guessed
        new = len(prompt) - run.use.cached_tokens
        assert sum(tokens for _, tokens in model.passes) == new + len(run.tokens) - 1 + guessed


# A 24B model on a Mac reads 110 tokens per second, as measured by others.
M2_PRO_24B = 1 / 110

# A 30B model with 3B active parameters on a faster Mac.
M4_MAX_30B_A3B = 1 / 1500


def most_read_beside_an_answer(chunks: ChunkSizes, ends: list[int]) -> int:
    """Returns the tokens, padding included, of the largest pass over prompts that begin while another is answered."""
    model, harness = watched(chunks=chunks)
    answered = harness.start(QUESTION, max_tokens=200)
    while not harness.engine.step():
        pass
    model.passes.clear()
    started = [harness.start([(seed * i + seed) % 190 for i in range(end)]) for seed, end in enumerate(ends, start=3)]
    harness.finish(*started, answered)
    return max(rows * tokens for rows, tokens in model.passes)


def taught(first: int, seconds_per_token: float) -> ChunkSizes:
    chunks = ChunkSizes(first, Attention())
    chunks.learn(chunks.chosen, first * seconds_per_token)
    return chunks


@pytest.mark.parametrize(
    "ends", [[1000], [120] * 3, [30] * 3, [100, 30, 20]], ids=["a turn", "long", "short", "different"]
)
def test_ends_of_prompts_beside_an_answer_are_no_longer_than_the_machine_is_fast(ends: list[int]) -> None:
    assert most_read_beside_an_answer(taught(512, M2_PRO_24B), ends) <= LAST_CHUNKS * SMALLEST_CHUNK


def test_ends_that_are_short_enough_are_read_in_one_batch() -> None:
    assert most_read_beside_an_answer(taught(512, M2_PRO_24B), [30] * 3) == 3 * 29
    assert most_read_beside_an_answer(taught(512, M4_MAX_30B_A3B), [1000]) == 999


def test_a_cpu_reads_all_ends_in_one_batch() -> None:
    assert most_read_beside_an_answer(taught(SMALLEST_CHUNK, M2_PRO_24B), [120] * 3) == 3 * 119
