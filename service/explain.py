from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from service.executor.prefix.tree import common_length
from service.generation import GenerationRequest

_CHARACTERS_BEFORE = 30
_CHARACTERS_AFTER = 50


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`character` counts from 0 to the first difference of two texts. `left` and `right` are excerpts, values as JSON,
    or `(absent)`."""

    path: str
    left: str
    right: str
    character: int | None = None

    def __str__(self) -> str:
        place = self.path if self.character is None else f"{self.path} at character {self.character}"
        return f"{place}\n  A: {self.left}\n  B: {self.right}"


def differences(left: GenerationRequest, right: GenerationRequest) -> Iterator[Difference]:
    return _compare("", msgspec.to_builtins(left), msgspec.to_builtins(right))


def first_token_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    """Returns an index, or None if the prompts are equal. If one prompt begins the other, returns its length."""
    shared = common_length(left, right)
    return None if shared == len(left) == len(right) else shared


def _compare(path: str, left: Any, right: Any) -> Iterator[Difference]:
    match left, right:
        case dict(), dict():
            for key in [*left, *(key for key in right if key not in left)]:
                inner = f"{path}.{key}" if path else key
                yield from _compare(inner, left.get(key, UNSET), right.get(key, UNSET))
        case list() | tuple(), list() | tuple():
            for i in range(max(len(left), len(right))):
                yield from _compare(f"{path}[{i}]", _item(left, i), _item(right, i))
        case str(), str():
            if left != right:
                at = common_length(left, right)
                yield Difference(path=path, left=_excerpt(left, at), right=_excerpt(right, at), character=at)
        case _:
            if left != right or type(left) is not type(right):
                yield Difference(path=path, left=_show(left), right=_show(right))


def _item(items: Sequence[Any], index: int) -> Any:
    return items[index] if index < len(items) else UNSET


def _excerpt(text: str, at: int) -> str:
    start, end = max(0, at - _CHARACTERS_BEFORE), at + _CHARACTERS_AFTER
    quoted = msgspec.json.encode(text[start:end]).decode()
    return f"{'...' if start else ''}{quoted}{'...' if end < len(text) else ''}"


def _show(value: Any) -> str:
    if value is UNSET:
        return "(absent)"
    text = msgspec.json.encode(value).decode()
    limit = _CHARACTERS_BEFORE + _CHARACTERS_AFTER
    return text if len(text) <= limit else text[:limit] + "..."
