"""What a run of tokens adds to a model's state: taken out of mlx-lm's prompt caches, and put back into fresh ones.

A plain `KVCache` has one row of keys and values for each token: a run is its rows, and runs are joined and cut at will.
Sliding windows and recurrent states hold what is left of all tokens so far: of them a run keeps the whole state at its
end. Functions run on the thread that owns MLX; the arrays of a `State` are evaluated, and never written to.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, make_prompt_cache

from service.executor.prefix.file import Buffer

AS_NUMPY = {mx.bfloat16: mx.uint16}
"""What NumPy has no type for travels as another of the same width."""


class State(msgspec.Struct, frozen=True):
    """`arrays` of all leaves of the prompt cache, in order. `layouts` has for each leaf its state with an
    `{"array": INDEX}` for every array: JSON can hold it."""

    arrays: tuple[mx.array, ...]
    layouts: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays)


class PromptCaches:
    """The prompt caches of one model. Raises ValueError for a model whose caches are of a kind not known here."""

    def __init__(self, model: Any) -> None:
        self._model = model
        kinds = {type(leaf) for leaf in _leaves(make_prompt_cache(model))}
        unknown = kinds - {KVCache, RotatingKVCache, ArraysCache}
        if unknown:
            raise ValueError(f"prompt caches of this kind are not kept: {', '.join(k.__name__ for k in unknown)}")
        self.cuts_anywhere = kinds == {KVCache}

    def capture(self, caches: list[Any], start: int, end: int) -> State:
        """What the tokens `[start, end)` added to `caches`, which have read just `end` tokens, or more where they can
        be cut anywhere. Raises ValueError where the caches have read another number."""
        arrays: list[mx.array] = []
        layouts = [_capture(leaf, start, end, arrays) for leaf in _leaves(caches)]
        mx.eval(arrays)
        return State(tuple(arrays), tuple(layouts))

    def restore(self, parts: list[tuple[State, int]]) -> list[Any]:
        """Prompt caches that have read so many tokens of each state's run, one after another."""
        caches = make_prompt_cache(self._model)
        length = sum(tokens for _, tokens in parts)
        for index, leaf in enumerate(_leaves(caches)):
            if type(leaf) is KVCache:
                keys, values = (_joined(parts, index, place) for place in (0, 1))
                leaf.state = (keys, values, length)
            else:
                last, _ = parts[-1]
                leaf.state = _filled(last.layouts[index], last.arrays)
        return list(caches)

    def to_buffers(self, state: State) -> tuple[tuple[Any, ...], list[Buffer]]:
        """The state's layouts, and its bytes in place: they keep their arrays alive."""
        return state.layouts, [_buffer(array) for array in state.arrays]

    def from_buffers(self, layouts: tuple[Any, ...], buffers: list[Buffer]) -> State:
        """Copies. Raises ValueError, TypeError or AttributeError for shapes and types that do not fit the bytes."""
        return State(tuple(_array(buffer) for buffer in buffers), layouts)


def _leaves(caches: Iterable[Any]) -> Iterator[Any]:
    for cache in caches:
        if isinstance(cache, CacheList):
            yield from _leaves(cache.caches)
        else:
            yield cache


def _capture(leaf: Any, start: int, end: int, arrays: list[mx.array]) -> Any:
    if type(leaf) is KVCache:
        if leaf.keys is None or leaf.offset < end:
            raise ValueError(f"Expected a prompt cache of {end} tokens or more, found {leaf.offset}.")
        both: list[Any] = [leaf.keys, leaf.values]
        return _taken([rows[..., start:end, :] for rows in both], arrays)
    if isinstance(leaf, RotatingKVCache) and leaf.offset != end:
        raise ValueError(f"Expected a prompt cache of {end} tokens, found {leaf.offset}.")
    return _taken(leaf.state, arrays)


def _taken(tree: Any, arrays: list[mx.array]) -> Any:
    """The tree with numbers of `arrays` in place of its arrays, which are copied there: what they were cut from is kept
    alive by none of them."""
    if isinstance(tree, mx.array):
        arrays.append(mx.contiguous(tree))
        return {"array": len(arrays) - 1}
    if isinstance(tree, list | tuple):
        return [_taken(item, arrays) for item in tree]
    return tree


def _filled(layout: Any, arrays: tuple[mx.array, ...]) -> Any:
    if isinstance(layout, dict):
        return arrays[layout["array"]][...]  # another object: prompt caches write into theirs
    return [_filled(item, arrays) for item in layout] if isinstance(layout, list) else layout


def _joined(parts: list[tuple[State, int]], leaf: int, place: int) -> mx.array:
    rows = [state.arrays[state.layouts[leaf][place]["array"]][..., :tokens, :] for state, tokens in parts]
    return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=2)


def _buffer(array: mx.array) -> Buffer:
    stand_in = AS_NUMPY.get(array.dtype)
    plain = array if stand_in is None else array.view(stand_in)
    mx.eval(plain)
    data = np.asarray(plain).reshape(-1).view(np.uint8).data
    return Buffer(data, _name(array.dtype), tuple(array.shape))


def _array(buffer: Buffer) -> mx.array:
    dtype = getattr(mx, buffer.dtype)
    stand_in = AS_NUMPY.get(dtype)
    flat = np.frombuffer(buffer.data, dtype=_name(stand_in or dtype))
    array = mx.array(flat.reshape(buffer.shape))
    return array if stand_in is None else array.view(dtype)


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]
