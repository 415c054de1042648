import contextlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from cache_backends.sizes import read_size

# The sizes that `read_size` accepts, for editors.
SIZE_PATTERN = r"^\s*[0-9]{1,15}(\.[0-9]{1,6})? ?([KkMmGgTt][Ii]?[Bb]|[Bb])?\s*$"
A_SIZE = 'a size in bytes or like "2GiB"'


class BadValue(ValueError):
    """`expected` and `found` complete 'expected ..., found ...'."""

    def __init__(self, expected: str, value: object) -> None:
        self.expected = expected
        self.found = show(value)
        super().__init__(f"expected {expected}, found {self.found}")


def show(value: object) -> str:
    """Returns JSON, cut to 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_value(value: object, kind: Any, *, is_size: bool = False) -> Any:
    """`kind` is a type with msgspec's bounds. Raises BadValue."""
    if is_size and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = read_size(value)
    try:
        read = msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError:
        _check_items(value, kind)
        expected = _describe_size(kind) if is_size else describe(kind)
        if _fits([value], kind):
            expected += f", such as {show([value])}"
        raise BadValue(expected, value) from None
    for text in _texts(msgspec.to_builtins(read)):
        if "\0" in text:  # no path, host or header may contain it
            raise BadValue("a text without the character NUL", text)
    return read


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in (*value, *value.values()):
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)


def _check_items(value: object, kind: Any) -> None:
    """Raises BadValue."""
    info = inspect.type_info(kind)
    info = info.type if isinstance(info, inspect.Metadata) else info
    if not isinstance(info, inspect.DictType) or not isinstance(value, dict):
        return
    for name, item in value.items():
        try:
            msgspec.convert(item, _class_of(info.value_type), strict=True)
        except msgspec.ValidationError as exc:
            detail = str(exc)[:1].lower() + str(exc)[1:]
            raise BadValue(f"{show(name)} to be right ({detail})", item) from None


def _class_of(info: inspect.Type) -> Any:
    info = info.type if isinstance(info, inspect.Metadata) else info
    return info.cls if isinstance(info, inspect.StructType) else str


def _fits(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def show_size(size: int | str) -> str:
    """2147483648 is `2GiB`."""
    if isinstance(size, str):
        return size
    for power, prefix in reversed(list(enumerate("KMGT", start=1))):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{prefix}iB"
    return f"{size}B"


def _describe_size(kind: Any) -> str:
    info = inspect.type_info(kind)
    info = info.type if isinstance(info, inspect.Metadata) else info
    kinds = info.types if isinstance(info, inspect.UnionType) else ()
    return " or ".join([*(_describe(each) for each in kinds if isinstance(each, inspect.LiteralType)), A_SIZE])


def describe(kind: Any) -> str:
    return _describe(inspect.type_info(kind))


def _describe(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _describe(info.type)
        case inspect.UnionType():
            return " or ".join(_describe(option) for option in info.types)
        case inspect.LiteralType():
            return " or ".join(show(value) for value in sorted(info.values, key=str))
        case inspect.IntType() | inspect.FloatType():
            return ("a whole number" if isinstance(info, inspect.IntType) else "a number") + _bounds(info)
        case inspect.StrType():
            return "a text that is not empty" if info.min_length else "a text"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case inspect.VarTupleType():
            return "a list of texts that is not empty" if info.min_length else "a list of texts"
        case inspect.DictType():
            return "an object"
        case _:
            raise TypeError(f"no setting may have the type {info!r}")


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f" from {info.ge} to {info.le}"
    lower = f" above {info.gt}" if info.gt is not None else f" of at least {info.ge}" if info.ge is not None else ""
    return lower + (f" up to {info.le}" if info.le is not None else "")
