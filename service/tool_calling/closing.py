"""What of a JSON Schema a model is held to, where the schema itself leaves it open."""

from collections.abc import Mapping
from typing import Any

_OPEN = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"})
_COMBINED = frozenset({"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if"})


def closed(schema: Any) -> Any:
    """The schema without properties that it does not name, in objects that name some and say nothing of others.

    JSON Schema allows them, and nobody means it: a model that may invent properties does, until its tokens run out.
    What fits the result fits the schema. Combined schemas stay as they are: two closed ones may exclude each other.
    """
    if not isinstance(schema, Mapping) or _COMBINED & schema.keys():
        return schema
    result = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        result["properties"] = {name: closed(value) for name, value in properties.items()}
        if properties and not _OPEN & schema.keys():
            result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return result


def argument_schema(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema of one argument, with the definitions that it may refer to."""
    properties = parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    return {**definitions, **schema} if isinstance(schema, Mapping) else {}
