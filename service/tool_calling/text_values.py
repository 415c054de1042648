"""Values without quotes under a JSON Schema, as regular expressions of Rust's `regex` in llguidance's Lark."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.generation import Tool
from service.tool_calling.form import untyped
from service.tool_calling.schema import property_types, resolved

ANYTHING = "(?s:.*)"
_SPECIAL = frozenset("\\/.+*?()|[]{}^$#&-~")
_PATTERN_PIECE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_CLASS_PIECE = re.compile(r"\\.|[\[&~/]", re.DOTALL)
_ASCII = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}
_MAX_DEPTH = 16
_SCALARS = {"null": "null", "boolean": "true|false", "integer": "-?(0|[1-9][0-9]*)"}
_SCALARS["number"] = _SCALARS["integer"] + r"(\.[0-9]+)?([eE][-+]?[0-9]+)?"
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_UNREAD = frozenset({"not", "if", "$dynamicRef"})

_DAYS = "(0[1-9]|[12][0-9]{})"
_LONG_MONTH, _SHORT_MONTH = f"(0[13578]|1[02])-{_DAYS.format('|3[01]')}", f"(0[469]|11)-{_DAYS.format('|30')}"
_DATE = f"[1-9][0-9]{{3}}-({_LONG_MONTH}|{_SHORT_MONTH}|02-(0[1-9]|1[0-9]|2[0-8]))"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_CLOCK = "(T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))"
# Every match is valid (RFC 3339, 5321, 1123, 4291, 3986, 4122). Some valid values are left out: leap days and seconds,
# quoted mailboxes, IPv6 addresses with a longer gap.
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P([0-9]+W|([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D){_CLOCK}?|{_CLOCK})",
    "email": rf"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+",
    "hostname": rf"{_LABEL}(\.{_LABEL})*",
    "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}",
    "ipv6": "([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,6}(:[0-9a-fA-F]{1,4})|::1",
    "uri": r"[a-z][a-z0-9+.-]*:([A-Za-z0-9._~!$&'()*+,;=:@\/?-]|%[0-9A-Fa-f]{2})+",
    "uuid": "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}


def escape(text: str) -> str:
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in text).replace("\n", "\\n")


def enforced_text(schema: Any, root: Mapping[str, Any]) -> str:
    """References resolve in `root`. Raises ValueError for a schema that no terminal can enforce."""
    return _Texts(root).of(schema, 0)


def likely_text(tool: Tool, name: str, schema: Mapping[str, Any]) -> str:
    """Covers choices and lengths only, for tools that are not strict."""
    if property_types(tool, name) == {"string"} or "enum" in schema or "const" in schema:
        return plain_text(schema)
    return _regex(ANYTHING)


def plain_text(schema: Mapping[str, Any]) -> str:
    return _choices(schema) if "enum" in schema or "const" in schema else _length(schema)


class _Texts:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def of(self, schema: Any, depth: int) -> str:
        schema = resolved(schema, self._root)
        if depth > _MAX_DEPTH:
            raise ValueError("a schema that refers to itself")
        if not isinstance(schema, Mapping):
            return _regex(ANYTHING)
        if unread := _UNREAD & schema.keys():
            raise ValueError(f"{min(unread)!r} beside text")
        if "enum" in schema or "const" in schema:
            return _choices(schema)
        parts = [*self._own(schema), *(self.of(branch, depth + 1) for branch in schema.get("allOf") or ())]
        for combination in ("anyOf", "oneOf"):
            if branches := schema.get(combination):
                parts += [_either([self.of(branch, depth + 1) for branch in branches])]
        return f"({' & '.join(parts)})" if parts else _regex(ANYTHING)

    def _own(self, schema: Mapping[str, Any]) -> Iterator[str]:
        declared = schema.get("type")
        types = [declared] if isinstance(declared, str) else declared
        if types:
            yield _either([_of_type(kind, schema) for kind in types])
        elif {"pattern", "format", "minLength", "maxLength"} & schema.keys():
            yield _of_type("string", schema)


def _of_type(kind: str, schema: Mapping[str, Any]) -> str:
    if kind == "string":
        return f"({' & '.join(_string(schema))})"
    if kind not in _SCALARS:
        raise ValueError(f"a value that is either text or of type {kind!r}")
    if bounds := _BOUNDS & schema.keys():
        raise ValueError(f"{min(bounds)!r} of a value that may be text")
    return _regex(_SCALARS[kind])


def _string(schema: Mapping[str, Any]) -> Iterator[str]:
    yield _length(schema)
    if "pattern" in schema:
        yield _regex(_search(schema["pattern"]))
    if "format" in schema:
        if schema["format"] not in FORMATS:
            raise ValueError(f"the format {schema['format']!r} (known are {', '.join(FORMATS)})")
        yield _regex(FORMATS[schema["format"]])


def _search(pattern: str) -> str:
    """A pattern matches anywhere in a text (JSON Schema, validation 6.3.3), unless it is anchored."""
    branches: list[list[str]] = [[]]  # each is anchored by itself: llguidance refuses anchors inside groups
    depth = 0
    for piece in _PATTERN_PIECE.findall(pattern):
        depth += (piece == "(") - (piece == ")")
        if piece == "|" and depth == 0:
            branches.append([])
        else:
            branches[-1].append(piece)
    return "|".join(map(_anchored, branches))


def _anchored(branch: Sequence[str]) -> str:
    starts, ends = branch[:1] == ["^"], branch[-1:] == ["$"]
    body = "".join(map(_in_lark, branch[starts : len(branch) - ends]))
    return f"{'' if starts else ANYTHING}({body}){'' if ends else ANYTHING}"


def _in_lark(piece: str) -> str:
    """Translates an ECMAScript piece to Rust, between slashes and on one line."""
    if piece in _ASCII:
        return f"[{_ASCII[piece]}]"
    if piece.startswith("["):
        inside = _CLASS_PIECE.sub(lambda found: _ASCII.get(found[0]) or found[0].rjust(2, "\\"), piece[1:])
        piece = f"[{inside}"
    return (r"\/" if piece == "/" else piece).replace("\n", r"\n")


def _length(schema: Mapping[str, Any]) -> str:
    return _regex(f"(?s:.{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}})")


def _choices(schema: Mapping[str, Any]) -> str:
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    return _either([_regex(escape(untyped(json.dumps(value)))) for value in values])


def _either(terminals: Sequence[str]) -> str:
    return f"({' | '.join(terminals)})"


def _regex(pattern: str) -> str:
    return f"/{pattern}/"
