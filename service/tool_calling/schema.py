"""What a tool's JSON Schema (2020-12) says: which types a value may have, and whether a call's arguments fit.

A light check: types, enums, required and unknown properties, through `$ref` within the schema and combinations. It
tells what to log and count; a client that executes tools checks for itself.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from service.generation import Tool, ToolCall

TYPES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})
_MAX_DEPTH = 32
_INT_DIGITS = 4000  # Python refuses to convert more than 4300


def property_types(tool: Tool | None, name: str) -> frozenset[str]:
    """The JSON types that the tool's argument `name` may have: all, if the schema does not say."""
    root = tool.parameters if tool else {}
    properties = root.get("properties")
    return _types(properties.get(name) if isinstance(properties, Mapping) else None, root, 0) or TYPES


def check(call: ToolCall, tool: Tool) -> list[str]:
    """How the arguments differ from the schema, one line each: where, what was expected, what was found."""
    try:
        arguments = json.loads(call.arguments, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        return [f"$: expected a JSON object, found what cannot be decoded ({error})"]
    return list(_mismatches(arguments, tool.parameters, tool.parameters, "$", 0))


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """None, where the schema contradicts itself. A number may be an integer."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return TYPES
    types = TYPES
    declared = schema.get("type")
    if declared:
        types = frozenset([declared] if isinstance(declared, str) else declared) & TYPES or TYPES
        types |= {"integer"} if "number" in types else frozenset()
    elif isinstance(schema.get("enum"), list):
        types = frozenset(map(_type, schema["enum"]))
    elif "const" in schema:
        types = frozenset({_type(schema["const"])})
    for combination in ("anyOf", "oneOf"):
        branches = schema.get(combination)
        if isinstance(branches, list) and branches:
            types &= frozenset[str]().union(*(_types(branch, root, depth + 1) for branch in branches))
    for branch in schema.get("allOf") or ():
        types &= _types(branch, root, depth + 1)
    return types


def _mismatches(value: Any, schema: Any, root: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return
    types = _types(schema, root, depth)
    found = _type(value)
    if found not in types and not _is_integral(value, types):
        expected = types - {"integer"} if "number" in types else types
        yield f"{path}: expected {' or '.join(sorted(expected)) or 'nothing'}, found {found}"
        return
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(allowed, list) and not any(_same(value, item) for item in allowed):
        yield f"{path}: expected one of {json.dumps(allowed, ensure_ascii=False)}, found another value"
    for combination in ("anyOf", "oneOf"):
        branches = schema.get(combination)
        if isinstance(branches, list) and not _fits_one(value, branches, root, path, depth):
            yield f"{path}: expected a value of one of {len(branches)} forms ({combination}), found another"
    for branch in schema.get("allOf") or ():
        yield from _mismatches(value, branch, root, path, depth + 1)
    if isinstance(value, dict):
        yield from _in_object(value, schema, root, path, depth)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _mismatches(item, schema["items"], root, f"{path}[{index}]", depth + 1)


def _in_object(
    value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    for name in schema.get("required") or ():
        if name not in value:
            yield f"{path}.{name}: required, but missing"
    others = schema.get("additionalProperties")
    for name, item in value.items():
        if name in properties:
            yield from _mismatches(item, properties[name], root, f"{path}.{name}", depth + 1)
        elif others is False:
            yield f"{path}.{name}: no such property"
        else:
            yield from _mismatches(item, others, root, f"{path}.{name}", depth + 1)


def _fits_one(value: Any, branches: list[Any], root: Mapping[str, Any], path: str, depth: int) -> bool:
    return any(not any(_mismatches(value, branch, root, path, depth + 1)) for branch in branches)


def resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """Follows `$ref` within the schema (RFC 6901); one that leads elsewhere, or in a circle, allows everything."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str):
            return schema
        if not reference.startswith("#"):
            return None
        schema = root
        for part in reference[1:].split("/")[1:]:
            schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
    return None


def _type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | Decimal():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _is_integral(value: Any, types: frozenset[str]) -> bool:
    """1.0 is an integer (JSON Schema, core 4.2.3)."""
    return isinstance(value, float) and "integer" in types and value.is_integer()


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _whole_number(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INT_DIGITS else Decimal(digits)
