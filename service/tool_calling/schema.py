from collections.abc import Mapping
from typing import Any

from service.generation import Tool

TYPES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})
_MAX_DEPTH = 32


def property_types(tool: Tool | None, name: str) -> frozenset[str]:
    """Returns all types if the schema does not name any."""
    root = tool.parameters if tool else {}
    properties = root.get("properties")
    return value_types(properties.get(name) if isinstance(properties, Mapping) else None, root, 0) or TYPES


def value_types(schema: Any, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """Returns no types if the schema contradicts itself. `number` includes `integer`."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return TYPES
    types = TYPES
    declared = schema.get("type")
    if declared:
        types = frozenset([declared] if isinstance(declared, str) else declared) & TYPES or TYPES
        types |= {"integer"} if "number" in types else frozenset()
    elif isinstance(schema.get("enum"), list):
        types = frozenset(map(json_type, schema["enum"]))
    elif "const" in schema:
        types = frozenset({json_type(schema["const"])})
    for combination in ("anyOf", "oneOf"):
        branches = schema.get(combination)
        if isinstance(branches, list) and branches:
            types &= frozenset[str]().union(*(value_types(branch, root, depth + 1) for branch in branches))
    for branch in schema.get("allOf") or ():
        types &= value_types(branch, root, depth + 1)
    return types


def resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """Follows `$ref` within the schema (RFC 6901). Returns None, which allows everything, if it leads elsewhere or in a
    circle."""
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


def json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
