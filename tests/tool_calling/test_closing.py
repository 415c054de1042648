from typing import Any

import pytest

from service.tool_calling.closing import argument_schema, closed

OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED = {**OPEN, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (OPEN, CLOSED),
        (CLOSED, CLOSED),
        ({**OPEN, "additionalProperties": True}, {**OPEN, "additionalProperties": True}),
        ({**OPEN, "patternProperties": {}}, {**OPEN, "patternProperties": {}}),
        ({"type": "object"}, {"type": "object"}),
        ({"type": "array", "items": OPEN}, {"type": "array", "items": CLOSED}),
        ({"properties": {"o": OPEN}}, {"properties": {"o": CLOSED}, "additionalProperties": False}),
        ({"allOf": [OPEN, OPEN]}, {"allOf": [OPEN, OPEN]}),
        (True, True),
    ],
)
def test_objects_that_name_their_properties_are_closed(schema: Any, expected: Any) -> None:
    assert closed(schema) == expected
    assert closed(expected) == expected


def test_an_argument_keeps_the_definitions_that_it_refers_to() -> None:
    parameters = {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "null"}}}
    assert argument_schema(parameters, "a") == {"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}}
    assert argument_schema(parameters, "b") == {}
