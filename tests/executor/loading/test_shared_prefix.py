from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import base
from mlx_lm.models.cache import KVCache, make_prompt_cache

from service.executor.engine.batch import Batch
from service.executor.engine.run import Run
from service.executor.loading.batching import Batching
from service.executor.loading.cpu_attention import attention, route_attention
from service.executor.loading.shared_prefix import Beginning, SharedPrefixCache, shareable
from service.executor.prefix.cache import NoPrefixCache
from tests.executor.engines import sequence
from tests.executor.models.tiny import make_tiny

SIZE = 8
SHARED = 11
LENGTHS = (13, 11, 16)


def numbers(*shape: int) -> mx.array:
    return mx.random.normal(shape)


def merged(states: list[tuple[mx.array, mx.array]], shared: int) -> Any:
    """The states of sequences, as mlx-lm merges them."""
    beginning = Beginning(0, length=shared)
    caches = []
    for keys, values in states:
        (cache,) = shareable(make_prompt_cache(make_tiny("llama"))[:1], beginning)
        cache.keys, cache.values, cache.offset = keys, values, keys.shape[2]
        caches.append(cache)
    return caches[0].merge(caches)


def states(kv_heads: int) -> list[tuple[mx.array, mx.array]]:
    """Of sequences that begin alike."""
    mx.random.seed(1)
    keys, values = numbers(1, kv_heads, SHARED, SIZE), numbers(1, kv_heads, SHARED, SIZE)
    found = []
    for length in LENGTHS:
        own = [numbers(1, kv_heads, length - SHARED, SIZE) for _ in range(2)]
        found.append((mx.concatenate([keys, own[0]], axis=2), mx.concatenate([values, own[1]], axis=2)))
    return found


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
def test_attention_is_the_same_whether_the_beginning_is_shared_or_not(
    heads: int, kv_heads: int, tokens: int, sinks: bool
) -> None:
    both = []
    for shared in (0, SHARED):
        batch = merged(states(kv_heads), shared)
        mx.random.seed(2)
        queries, new_keys, new_values = (numbers(len(LENGTHS), n, tokens, SIZE) for n in (heads, kv_heads, kv_heads))
        mask = batch.make_mask(tokens)
        keys, values = batch.update_and_fetch(new_keys, new_values)
        logits = numbers(heads) if sinks else None
        attend = attention if shared else base.scaled_dot_product_attention
        both.append((attend(queries, keys, values, batch, 0.3, mask, logits), batch.offset, keys.shape[2]))
    (alone, offsets, length), (together, same_offsets, own_length) = both
    assert mx.allclose(alone, together, atol=1e-5).item()
    assert offsets.tolist() == same_offsets.tolist() == [length + tokens for length in LENGTHS]
    assert length - own_length == SHARED


@pytest.mark.parametrize("kind", ["none", "bool", "numbers", "of each head"])
@pytest.mark.parametrize("rows", [1, 3])
def test_grouped_heads_attend_as_mlx_does(rows: int, kind: str) -> None:
    mx.random.seed(4)
    queries, keys, values = numbers(rows, 6, 1, SIZE), numbers(rows, 2, 20, SIZE), numbers(rows, 2, 20, 5)
    shown = mx.random.uniform(shape=(rows, 1, 1, 20)) > 0.3
    mask = {"none": None, "bool": shown, "numbers": mx.where(shown, 0.5, -mx.inf), "of each head": numbers(1, 6, 1, 20)}
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask[kind])
    assert mx.allclose(attention(queries, keys, values, None, 0.3, mask[kind]), expected, atol=1e-5)


def test_masks_of_numbers_hide_as_others_do() -> None:
    batch = merged(states(2), SHARED)
    queries = numbers(len(LENGTHS), 4, 1, SIZE)
    mask = batch.make_mask(1)
    keys, values = batch.update_and_fetch(*(numbers(len(LENGTHS), 2, 1, SIZE) for _ in range(2)))
    plain = attention(queries, keys, values, batch, 1.0, mask)
    assert mx.allclose(plain, attention(queries, keys, values, batch, 1.0, mx.where(mask, 0.0, -mx.inf)), atol=1e-6)


def test_each_gets_its_whole_state_back_after_others_have_come_and_gone() -> None:
    rows = states(2)
    batch = merged(rows, SHARED)
    batch.filter([2, 0])
    batch.extend(merged([rows[1]], 0))
    batch.beginning.length = 4
    batch.extend(merged([(numbers(1, 2, 5, SIZE), numbers(1, 2, 5, SIZE))], 0))
    assert batch.prefix.length == 4
    for number, row in enumerate([2, 0, 1]):
        state = batch.extract(number)
        assert state.offset == LENGTHS[row]
        assert mx.array_equal(state.keys, rows[row][0])
        assert mx.array_equal(state.values, rows[row][1])


def test_the_beginning_takes_its_memory_once() -> None:
    token = 2 * 2 * SIZE * 4
    assert merged(states(2), 0).nbytes == len(LENGTHS) * max(LENGTHS) * token
    assert merged(states(2), SHARED).nbytes == (SHARED + len(LENGTHS) * (max(LENGTHS) - SHARED)) * token


def test_little_is_not_shared() -> None:
    batch = merged(states(2), SHARED)
    for least, shared in ((2 * SHARED, SHARED), (2 * SHARED + 1, 0)):
        batch.beginning.least_saved = least
        assert SharedPrefixCache(batch.rows(), batch.beginning).prefix_length == shared


def test_callers_share_nothing() -> None:
    assert kept_bytes("one", "other") == kept_bytes("one", "one", shares_from=None) > kept_bytes("one", "one")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_leaves_has_mlx_lms_caches(steps: int) -> None:
    batch, runs = inserted("one", "one")
    for _ in range(steps):
        batch.step()
    for run in runs:
        batch.take(run)
        assert run.cache is not None
        assert [type(cache) for cache in run.cache] == [KVCache] * len(run.cache)
        assert [cache.offset for cache in run.cache] == [run.read] * len(run.cache)


@pytest.mark.parametrize("shares_from", [100, 198, 199, 200])
def test_layers_of_different_sizes_share_alike(shares_from: int) -> None:
    """mlx-lm's models make one mask for all layers."""
    model = make_tiny("openelm", num_kv_heads=[1, 2, 4, 2], num_query_heads=[4, 4, 4, 4])
    batch, runs = inserted("one", "one", shares_from=shares_from, model=model)
    drawn = [[each.token for each in batch.step()] for _ in range(4)]
    unshared, _ = inserted("one", "one", shares_from=None, model=model)
    assert drawn == [[each.token for each in unshared.step()] for _ in range(4)]
    assert len(drawn[-1]) == len(runs)


def kept_bytes(*callers: str, shares_from: int | None = 0) -> int:
    batch, _ = inserted(*callers, shares_from=shares_from)
    batch.step()
    batch.step()
    return batch.nbytes


def inserted(*callers: str, shares_from: int | None = 0, model: Any = None) -> tuple[Batch, list[Run]]:
    model = model or make_tiny("llama")
    route_attention(model)
    batch = Batch(model, set(), Batching(4, shares_from=shares_from), last_tokens=16)
    runs = []
    for number, caller in enumerate(callers):
        run = Run(sequence(number, max_tokens=4, prompt=200, caller=caller), NoPrefixCache())
        run.cache, run.read = make_prompt_cache(model), 199
        model(mx.array([run.tokens[:199]]), cache=run.cache)
        runs.append(run)
    batch.insert(runs)
    return batch, runs
