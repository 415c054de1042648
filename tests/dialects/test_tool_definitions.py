"""The schema of a tool's arguments, whatever protocol it came in."""

import re
from typing import Any

import pytest

from service.dialects.json_body import MAX_DEPTH
from service.dialects.tool_definitions import argument_schema
from service.errors import BadRequest

NOTHING = {"type": "object", "properties": {}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, NOTHING),
        ({}, NOTHING),
        (CITY, CITY),
        ({"properties": CITY["properties"]}, CITY),
        ({"$ref": "#/$defs/city"}, {"type": "object", "$ref": "#/$defs/city"}),
    ],
    ids=["none", "empty", "whole", "without-type", "reference"],
)
def test_what_a_schema_means(given: dict[str, Any] | None, meant: dict[str, Any]) -> None:
    assert argument_schema(given, "tools[0].input_schema") == meant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "string"}, "expected a JSON Schema of type 'object', found type \"string\""),
        ({"type": ["object", "null"]}, 'found type ["object","null"]'),
        (nested(MAX_DEPTH + 2), f"nests too deep: expected at most {MAX_DEPTH} levels"),
    ],
    ids=["string", "several", "deep"],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(message)) as refused:
        argument_schema(given, "tools[0].input_schema")
    assert refused.value.param == "tools[0].input_schema"
