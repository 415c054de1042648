"""A plain `KVCache` has a row per token, so spans can be joined and cut. Windows and recurrent states depend on all
earlier tokens, so their span keeps the whole state at its end."""

from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx_lm.models.cache import ArraysCache, ChunkedKVCache, KVCache, RotatingKVCache, make_prompt_cache

from service.executor.loading.cache_kinds import leaves
from service.executor.prefix.file import Buffer

# NumPy lacks these types; another type of the same width replaces them.
AS_NUMPY = {mx.bfloat16: mx.uint16}


class State(msgspec.Struct, frozen=True):
    """`arrays` are evaluated and never written to. `layouts` has one entry per leaf, in which `{"array": INDEX, "row":
    ROW}` refers to a row of an array, or to a whole one without `row`."""

    arrays: tuple[mx.array, ...]
    layouts: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays)


class _Part(msgspec.Struct, frozen=True):
    """Stands for an array in a layout that is not placed yet."""

    index: int


class PromptStates:
    """Runs on the MLX thread. Raises ValueError for unknown caches."""

    def __init__(self, model: Any) -> None:
        self._model = model
        kinds = {type(leaf) for leaf in leaves(make_prompt_cache(model))}
        unknown = kinds - {KVCache, RotatingKVCache, ChunkedKVCache, ArraysCache}
        if unknown:
            raise ValueError(f"prompt caches of this kind are not kept: {', '.join(k.__name__ for k in unknown)}")
        self.cuts_anywhere = kinds == {KVCache}

    def capture(self, caches: list[Any], start: int, end: int) -> State:
        """Copies the part of the tokens `[start, end)`. Raises ValueError unless `caches` have read `end` tokens, or
        more if they can be cut."""
        parts: list[mx.array] = []
        layouts = [_capture(leaf, start, end, parts) for leaf in leaves(caches)]
        arrays, places = _stacked(parts)
        mx.eval(arrays)
        return State(tuple(arrays), tuple(_placed(layout, places) for layout in layouts))

    def restore(self, parts: list[tuple[State, int]]) -> list[Any]:
        """Each part is a span's state and the number of its tokens to use."""
        caches = make_prompt_cache(self._model)
        length = sum(tokens for _, tokens in parts)
        for index, leaf in enumerate(leaves(caches)):
            if type(leaf) is KVCache:
                keys, values = (_joined(parts, index, place) for place in (0, 1))
                leaf.state = (keys, values, length)
            else:
                last, _ = parts[-1]
                leaf.state = _filled(last.layouts[index], last.arrays)
        return list(caches)

    def to_buffers(self, state: State) -> tuple[tuple[Any, ...], list[Buffer]]:
        """The buffers share memory with the arrays and keep them alive."""
        plain = [array.view(AS_NUMPY.get(array.dtype, array.dtype)) for array in state.arrays]
        mx.eval(plain)  # together: on a GPU each evaluation is a round trip
        return state.layouts, [_buffer(array, bytes_of) for array, bytes_of in zip(state.arrays, plain, strict=True)]

    def from_buffers(self, layouts: tuple[Any, ...], buffers: list[Buffer]) -> State:
        """Copies. Raises ValueError, TypeError or AttributeError for unfit bytes."""
        return State(tuple(_array(buffer) for buffer in buffers), layouts)


def _capture(leaf: Any, start: int, end: int, parts: list[mx.array]) -> Any:
    if type(leaf) is KVCache:
        if leaf.keys is None or leaf.offset < end:
            raise ValueError(f"Expected a prompt cache of {end} tokens or more, found {leaf.offset}.")
        both: list[Any] = [leaf.keys, leaf.values]
        return _taken([rows[..., start:end, :] for rows in both], parts)
    if isinstance(leaf, RotatingKVCache | ChunkedKVCache):
        if leaf.offset != end:
            raise ValueError(f"Expected a prompt cache of {end} tokens, found {leaf.offset}.")
        return _taken(_window(leaf) if isinstance(leaf, RotatingKVCache) else _chunk(leaf), parts)
    return _taken(leaf.state, parts)


def _window(leaf: RotatingKVCache) -> tuple[Any, ...]:
    """Drops rows that no later token reads: a window holds one more chunk after chunked reading, and unused rows while
    it grows."""
    keys, values, offset, keep, size, index = leaf.state
    rows = keys.shape[2]
    if rows > size:  # in order of time, because a chunk was appended
        first = rows - size + keep
        parts = [[array[..., :keep, :], array[..., first:, :]] for array in (keys, values)]
        keys, values = (mx.concatenate(part, axis=2) for part in parts)
        index = size
    elif offset < rows:
        keys, values = keys[..., :offset, :], values[..., :offset, :]
        index = offset
    return keys, values, offset, keep, size, index


def _chunk(leaf: ChunkedKVCache) -> tuple[Any, ...]:
    keys, values, offset, size, start = leaf.state
    return keys[..., : offset - start, :], values[..., : offset - start, :], offset, size, start


def _taken(tree: Any, parts: list[mx.array]) -> Any:
    if isinstance(tree, mx.array):
        parts.append(tree)
        return _Part(len(parts) - 1)
    if isinstance(tree, list | tuple):
        return [_taken(item, parts) for item in tree]
    return tree


def _stacked(parts: list[mx.array]) -> tuple[list[mx.array], list[dict[str, int]]]:
    """Copies the parts, those of one shape into one array. Returns the arrays, and the place of each part."""
    # Two arrays a layer would be buffers, copies and evaluations of their own. Metal allows 499,000 buffers.
    groups: dict[Any, list[int]] = {}
    for index, part in enumerate(parts):
        stacks = part.ndim > 1 and part.shape[0] == 1
        groups.setdefault((part.shape, part.dtype) if stacks else index, []).append(index)
    places: list[dict[str, int]] = [{}] * len(parts)
    arrays: list[mx.array] = []
    for group in groups.values():
        for row, index in enumerate(group):
            places[index] = {"array": len(arrays)} | ({"row": row} if len(group) > 1 else {})
        chosen = [parts[index] for index in group]
        arrays.append(mx.concatenate(chosen) if len(chosen) > 1 else mx.contiguous(chosen[0]))
    return arrays, places


def _placed(layout: Any, places: list[dict[str, int]]) -> Any:
    if isinstance(layout, _Part):
        return places[layout.index]
    return [_placed(item, places) for item in layout] if isinstance(layout, list) else layout


def _part(place: dict[str, int], arrays: tuple[mx.array, ...]) -> mx.array:
    array, row = arrays[place["array"]], place.get("row")
    return array[...] if row is None else array[row : row + 1]


def _filled(layout: Any, arrays: tuple[mx.array, ...]) -> Any:
    if isinstance(layout, dict):
        return _part(layout, arrays)  # a new object, because prompt caches write into theirs
    return [_filled(item, arrays) for item in layout] if isinstance(layout, list) else layout


def _joined(parts: list[tuple[State, int]], leaf: int, place: int) -> mx.array:
    rows = [_part(state.layouts[leaf][place], state.arrays)[..., :tokens, :] for state, tokens in parts]
    return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=2)


def _buffer(array: mx.array, plain: mx.array) -> Buffer:
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
