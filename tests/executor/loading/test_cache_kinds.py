from types import SimpleNamespace

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from service.executor.loading.cache_kinds import growing_once

WIDTH = 4


def read(cache: KVCache, tokens: int) -> mx.array:
    rows = mx.arange(cache.offset, cache.offset + tokens, dtype=mx.float32)[None, None, :, None]
    keys, _ = cache.update_and_fetch(mx.repeat(rows, WIDTH, axis=3), mx.repeat(rows, WIDTH, axis=3))
    return keys


def test_the_state_of_a_prompt_is_copied_once_at_most() -> None:
    prompt, chunk = 2_000, 100
    cache = KVCache()
    rows = set()
    for done in range(0, prompt, chunk):
        with growing_once([cache], prompt - done):
            keys = read(cache, chunk)
        rows.add(cache.keys.shape[2])
    assert len(rows) == 1
    assert keys[0, 0, :, 0].tolist() == list(range(prompt))


def test_the_answer_grows_the_state_in_small_steps_again() -> None:
    cache = KVCache()
    with growing_once([SimpleNamespace(), cache], 2_000):
        read(cache, 2_000)
    assert cache.keys.shape[2] == 2_000 + KVCache.step
    read(cache, KVCache.step)
    assert cache.keys.shape[2] == 2_000 + KVCache.step
    keys = read(cache, 1)
    assert cache.keys.shape[2] == 2_000 + 2 * KVCache.step
    assert keys[0, 0, :, 0].tolist() == list(range(2_000 + KVCache.step + 1))
