from typing import Any

import pytest

from service.generation import Tool
from service.tool_calling.schema import TYPES, property_types


def tool(schema: dict[str, Any]) -> Tool:
    return Tool(name="f", parameters=schema)


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", 1, None]}, {"string", "integer", "null"}),
        ({"anyOf": [{"type": "string"}, {"const": 2}]}, {"string", "integer"}),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, {"string"}),
        ({"type": "no such type"}, TYPES),
        ({"$ref": "https://example.com/other.json"}, TYPES),
        ({}, TYPES),
        (True, TYPES),
        (None, TYPES),
    ],
)
def test_types_of_a_property(schema: Any, types: set[str]) -> None:
    assert property_types(tool({"properties": {"x": schema}}), "x") == types


def test_types_of_what_no_schema_knows() -> None:
    assert property_types(tool({}), "x") == TYPES
    assert property_types(None, "x") == TYPES
