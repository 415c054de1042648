"""Decodes a hostile JSON body into a typed Struct. Every defect becomes a `BadRequest` that names the field.

msgspec refuses lone surrogates, NaN and numbers too large for a float.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from service.errors import SHOWN_CHARS, BadRequest, InvalidJson, InvalidType, MissingParameter

T = TypeVar("T")

# Schemas of real tools nest about ten deep. Later readers recurse on a stack that is already deep.
MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_MESSAGES = 20_000

# A larger body is not read again for a better message.
_MAX_REREAD_BYTES = 1024 * 1024
_ANYTHING = msgspec.json.Decoder()
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def decode(decoder: msgspec.json.Decoder[T], body: bytes, *, at: str = "") -> T:
    """`at` is the field whose value the body is, if it is part of another body.

    Raises `InvalidJson`, `InvalidType`, `MissingParameter` or `BadRequest`, and nothing else.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _refusal(str(exc), body, at) from None
    except (UnicodeDecodeError, msgspec.DecodeError) as exc:
        raise _malformed(exc, body, at) from None
    except RecursionError:
        raise InvalidJson(f"{_whole(at)} nests too deep to be read.", param=at or None) from None


def check_utf8(body: bytes) -> None:
    """Raises `InvalidJson` that names the field. msgspec copies a `Raw` without a look at its characters."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        raise _malformed(exc, body, "") from None


def on_one_line(value: msgspec.Raw, param: str) -> msgspec.Raw:
    """Returns JSON text without line breaks, which would end a line of a stream. Numbers keep their digits."""
    text = bytes(value)
    if b"\n" not in text and b"\r" not in text:
        return value
    try:
        return msgspec.Raw(msgspec.json.format(text, indent=-1))
    except RecursionError:
        raise InvalidJson(f"'{param}' nests too deep to be read.", param=param) from None


def check_depth(value: msgspec.Raw, param: str) -> None:
    """Raises `BadRequest` beyond `MAX_DEPTH`, for text that is repeated without being read."""
    text = bytes(value)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        check_free_form(decode(_ANYTHING, text, at=param), param)


def check_free_form(value: Any, param: str) -> None:
    """Raises `BadRequest` beyond `MAX_DEPTH` or `MAX_VALUES`."""
    level: list[Any] = [value]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        seen += len(level)
        if seen > MAX_VALUES:
            raise BadRequest(f"'{param}' is too large: expected at most {MAX_VALUES} values in it.", param=param)
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        if not below:
            return
        level = below
    raise BadRequest(f"'{param}' nests too deep: expected at most {MAX_DEPTH} levels.", param=param)


def choose(value: str, known: Mapping[str, T], param: str) -> T:
    """Raises `BadRequest` that lists the words."""
    try:
        return known[value]
    except KeyError:
        expected = ", ".join(f"'{word}'" for word in known)
        raise BadRequest.at(param, f"expected one of {expected}, found {show(value)}.") from None


def join_texts(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def show(value: Any) -> str:
    """Returns a value as JSON, cut for an error message."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def _refusal(problem: str, body: bytes, at: str) -> BadRequest:
    """Returns the error for a message of msgspec, such as "Expected `float` <= 2.0 - at `$.temperature`"."""
    what, separator, path = problem.rpartition(" - at `")
    if not separator:
        what, path = path, ""
    path = path.rpartition("$")[2].rstrip("`")
    param = _join(at, _param(path))
    name = f"'{param}'" if param else "the body"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return MissingParameter(_join(param, missing[1]) or missing[1])
    if mismatch := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", what):
        expected = _types(mismatch[1])
        return InvalidType(f"Invalid type for {name}: expected {expected}, found {_types(mismatch[2])}.", param=param)
    expectation = re.sub(r"`([^`]*)`", lambda match: _types(match[1]), what)
    expectation = expectation[0].lower() + expectation[1:]
    return BadRequest(f"Invalid {name}: {expectation}{_found(body, path)}.", param=param)


def _param(path: str) -> str | None:
    """Returns `.messages[0].content` in OpenAI's notation, cut where msgspec does not know the key
    (`.logit_bias[...]`)."""
    return path.partition("[...]")[0].removeprefix(".") or None


def _join(parent: str | None, child: str | None) -> str | None:
    if not parent or not child:
        return parent or child
    return parent + child if child.startswith("[") else f"{parent}.{child}"


def _types(names: str) -> str:
    words = [_JSON_NAMES.get(name, name) for name in names.split(" | ")]
    return " or ".join(words)


def _found(body: bytes, path: str) -> str:
    if "[...]" in path or len(body) > _MAX_REREAD_BYTES:
        return ""
    try:
        value = msgspec.json.decode(body)
        for step in re.finditer(r"\.([^.\[`]+)|\[(\d+)\]", path):
            value = value[step[1]] if step[1] else value[int(step[2])]
        return f", found {show(value)}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""  # the rest of the body is damaged too


def _malformed(exc: UnicodeDecodeError | msgspec.DecodeError, body: bytes, at: str) -> InvalidJson:
    path = _path_of_broken_text(body)
    if isinstance(exc, UnicodeDecodeError):
        fault = "is not valid UTF-8"
    elif path is not None:
        fault = r"holds half of a surrogate pair (\ud800 to \udfff)"
    elif "truncated" in str(exc):
        fault = "is not valid JSON: it ends too early"
    else:
        fault = f"is not valid JSON: {str(exc).removeprefix('JSON is malformed: ')}"
    param = _join(at, path)
    return InvalidJson(f"{_whole(param)} {fault}.", param=param or None)


def _path_of_broken_text(body: bytes) -> str | None:
    """Returns the path of the first string that UTF-8 cannot hold, which msgspec does not name. None if the body has
    other defects."""
    if len(body) > _MAX_REREAD_BYTES:
        return None
    try:
        tree = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    pending: list[tuple[str, Any]] = [("", tree)]
    while pending:
        path, value = pending.pop()
        match value:
            case str() if _SURROGATE.search(value):
                return path
            case list():
                pending.extend((f"{path}[{i}]", item) for i, item in enumerate(value))
            case dict():
                if any(_SURROGATE.search(key) for key in value):
                    return path
                pending.extend((f"{path}.{key}" if path else key, item) for key, item in value.items())
    return None


def _whole(param: str | None) -> str:
    return f"'{param}'" if param else "The body"
