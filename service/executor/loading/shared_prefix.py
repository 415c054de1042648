"""Sequences of a batch that begin with the same tokens keep the state of these once. Attention reads it once for all of
them (Juravsky et al., "Hydragen", 2024)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, CacheList, KVCache

from service.executor.loading.cache_kinds import leaves
from service.executor.loading.softmax import softmax

# Bytes that a layer has to save in a step, for about eight more operations. Measured on a CPU.
LEAST_SAVED_BYTES = 2**20


def least_saved_tokens(caches: list[Any]) -> int | None:
    """Returns None if sharing never pays. `caches` have read some tokens."""
    found: Any = [leaf for leaf in leaves(caches) if type(leaf) is KVCache]
    if not found:
        return None
    token_bytes = sum(leaf.nbytes // leaf.keys.shape[2] for leaf in found) // len(found)
    return -(-LEAST_SAVED_BYTES // int(token_bytes))


class Beginning:
    """All sequences of a batch begin with the same `length` tokens."""

    def __init__(self, least_saved: int, length: int = 0) -> None:
        # In tokens a step, not in bytes: mlx-lm's models make one mask for all layers, so all share or none.
        self.least_saved = least_saved
        self.length = length

    def __deepcopy__(self, memo: dict[int, Any]) -> "Beginning":
        return self  # mlx-lm copies the caches of a batch that it splits


def shareable(caches: list[Any], beginning: Beginning) -> list[Any]:
    """Returns caches of the same arrays that merge into a `SharedPrefixCache`."""
    return [_shareable(cache, beginning) for cache in caches]


def plain(caches: list[Any]) -> list[Any]:
    """Returns what `shareable` was given, if nothing was merged."""
    return [_plain(cache) for cache in caches]


class KeysAndValues(NamedTuple):
    """Both have the shape `[1, kv_heads, length, size]`."""

    keys: mx.array
    values: mx.array

    @property
    def length(self) -> int:
        return int(self.keys.shape[2])

    def cut(self, start: int, end: int | None = None) -> "KeysAndValues":
        return KeysAndValues(self.keys[..., start:end, :], self.values[..., start:end, :])


class _Row:
    """The parts of a sequence's state. They are no copies."""

    def __init__(self, *parts: KeysAndValues) -> None:
        self.parts = [part for part in parts if part.length]
        self.length = sum(part.length for part in self.parts)

    def cut(self, start: int, end: int) -> "_Row":
        cut, passed = [], 0
        for part in self.parts:
            cut.append(part.cut(max(0, start - passed), max(0, end - passed)))
            passed += part.length
        return _Row(*cut)

    def joined(self) -> KeysAndValues:
        keys = mx.concatenate([part.keys for part in self.parts], axis=2)
        values = mx.concatenate([part.values for part in self.parts], axis=2)
        return KeysAndValues(mx.contiguous(keys), mx.contiguous(values))


class SharedPrefixCache(BatchKVCache):
    """mlx-lm's batch holds what follows the prefix. `offset` counts the prefix, and masks leave it out."""

    def __init__(self, rows: Sequence[_Row], beginning: Beginning) -> None:
        super().__init__([0] * len(rows))
        self.beginning = beginning
        self.fetches = 0
        self._hold(rows)

    def _hold(self, rows: Sequence[_Row]) -> None:
        shared = _shared_length(rows, self.beginning)
        self.prefix: KeysAndValues | None = None
        if shared:
            self.prefix = rows[0].cut(0, shared).joined()
        own = [row.cut(shared, row.length) for row in rows]
        self._idx = max(row.length for row in own)
        padding = [self._idx - row.length for row in own]
        self.left_padding, self.offset = mx.array(padding), mx.array([row.length for row in rows])
        arrays: Any = _padded(own, padding) if self._idx else (None, None)
        self.keys, self.values = arrays

    @property
    def own_length(self) -> int:
        return int(self._idx)

    @property
    def prefix_length(self) -> int:
        return 0 if self.prefix is None else self.prefix.length

    def rows(self) -> list[_Row]:
        shared = [] if self.prefix is None else [self.prefix]
        if self.keys is None:
            return [_Row(*shared) for _ in self.left_padding]
        return [
            _Row(*shared, KeysAndValues(self.keys[i : i + 1], self.values[i : i + 1]).cut(padding, self._idx))
            for i, padding in enumerate(self.left_padding.tolist())
        ]

    def extend(self, other: "SharedPrefixCache") -> None:
        self._hold([*self.rows(), *other.rows()])

    def extract(self, idx: int) -> Any:
        row = self.rows()[idx]
        empty: Any = KVCache
        cache = empty()
        if row.length:
            (cache.keys, cache.values), cache.offset = row.joined(), row.length
        return cache

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        self.fetches += 1
        batch: Any = super()
        return batch.update_and_fetch(keys, values)

    def is_trimmable(self) -> bool:
        return False

    def size(self) -> int:
        return self.prefix_length + self.own_length

    def empty(self) -> bool:
        return self.size() == 0

    @property
    def nbytes(self) -> int:
        shared = 0 if self.prefix is None else self.prefix.keys.nbytes + self.prefix.values.nbytes
        return int(super().nbytes) + shared

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> Any:  # noqa: N803 - mlx-lm's name
        if self.prefix is not None and kwargs.get("window_size") is not None:
            raise ValueError("a window over a shared prefix")  # `try_batching` finds it
        return super().make_mask(N, return_array, **kwargs)


class _ShareableCache(KVCache):
    keys: Any
    values: Any

    def __init__(self, cache: Any, beginning: Beginning) -> None:
        self.keys, self.values, self.offset = cache.keys, cache.values, cache.offset
        self.original = cache
        self.beginning = beginning

    @classmethod
    def merge(cls, caches: list[Any]) -> SharedPrefixCache:
        return SharedPrefixCache([cache.row() for cache in caches], caches[0].beginning)

    def row(self) -> _Row:
        return _Row(KeysAndValues(self.keys, self.values).cut(0, self.offset)) if self.offset else _Row()


def _shareable(cache: Any, beginning: Beginning) -> Any:
    several: Any = CacheList
    if isinstance(cache, CacheList):
        return several(*shareable(list(cache.caches), beginning))
    return _ShareableCache(cache, beginning) if type(cache) is KVCache else cache


def _plain(cache: Any) -> Any:
    several: Any = CacheList
    if isinstance(cache, CacheList):
        return several(*plain(list(cache.caches)))
    return cache.original if isinstance(cache, _ShareableCache) else cache


def _padded(rows: Sequence[_Row], padding: Sequence[int]) -> KeysAndValues:
    """Returns `[rows, kv_heads, length, size]` with `padding` before each row."""
    length = max(row.length for row in rows)
    example = next(row.parts[0] for row in rows if row.parts)
    keys, values = (mx.zeros((len(rows), a.shape[1], length, a.shape[3]), dtype=a.dtype) for a in example)
    for i, row in enumerate(rows):
        start = padding[i]
        for part in row.parts:
            keys[i : i + 1, :, start : start + part.length] = part.keys
            values[i : i + 1, :, start : start + part.length] = part.values
            start += part.length
    return KeysAndValues(keys, values)


def _shared_length(rows: Sequence[_Row], beginning: Beginning) -> int:
    length = min(beginning.length, *(row.length for row in rows))
    return length if (len(rows) - 1) * length >= beginning.least_saved else 0


def attend_to_both(
    prefix: KeysAndValues,
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    scale: float,
    mask: mx.array | None,
    sinks: mx.array | None,
) -> mx.array:
    rows, heads, tokens, size = queries.shape
    kv_heads, length, shared = keys.shape[1], keys.shape[2], prefix.length
    grouped = (queries * scale).reshape(rows, kv_heads, -1, size)
    # One product with the prefix serves all rows: [1, kv_heads, rows * queries, size].
    scores = _apart(_together(grouped) @ prefix.keys.swapaxes(2, 3), rows)
    parts = [scores, masked_scores(grouped, keys, tokens, mask)]
    if sinks is not None:
        sink = mx.repeat(sinks.reshape(kv_heads, -1), tokens, axis=1)[None, :, :, None]
        parts.append(mx.broadcast_to(sink, (*scores.shape[:3], 1)).astype(scores.dtype))
    weights = softmax(mx.concatenate(parts, axis=-1))
    attended = _apart(_together(weights[..., :shared]) @ prefix.values, rows)
    attended = attended + weights[..., shared : shared + length] @ values
    return attended.reshape(rows, heads, tokens, -1)


def masked_scores(grouped: mx.array, keys: mx.array, tokens: int, mask: mx.array | None) -> mx.array:
    """Returns `[rows, kv_heads, queries, length]`. `grouped` has scaled queries: `tokens` for each head of a group."""
    scores = grouped @ keys.swapaxes(2, 3)
    if mask is None:
        return scores
    by_head = scores.reshape(*scores.shape[:2], -1, tokens, scores.shape[3])
    mask = mask if mask.ndim < 3 else mx.expand_dims(mask, -3)
    by_head = mx.where(mask, by_head, mx.finfo(by_head.dtype).min) if mask.dtype == mx.bool_ else by_head + mask
    return by_head.reshape(scores.shape)


def with_copies(
    prefix: KeysAndValues, keys: mx.array, values: mx.array, mask: mx.array | None
) -> tuple[mx.array, mx.array, mx.array | None]:
    copies = [mx.broadcast_to(part, (keys.shape[0], *part.shape[1:])) for part in prefix]
    if mask is not None:
        shown = mx.full((*mask.shape[:-1], prefix.length), mask.dtype == mx.bool_, dtype=mask.dtype)
        mask = mx.concatenate([shown, mask], axis=-1)
    return mx.concatenate([copies[0], keys], axis=2), mx.concatenate([copies[1], values], axis=2), mask


def _together(array: mx.array) -> mx.array:
    """`[rows, kv_heads, queries, n]` to `[1, kv_heads, rows * queries, n]`."""
    return array.swapaxes(0, 1).reshape(1, array.shape[1], -1, array.shape[3])


def _apart(array: mx.array, rows: int) -> mx.array:
    return array.reshape(array.shape[1], rows, -1, array.shape[3]).swapaxes(0, 1)
