"""How calls are compared with the schema of their tool; jsonschema is the judge where both can say."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.generation import Tool, ToolCall
from service.tool_calling.schema import TYPES, check, property_types


def tool(schema: dict[str, Any]) -> Tool:
    return Tool(name="f", parameters=schema)


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
REFERENCE = {"$defs": {"c": {"enum": ["a", "b"]}}, "properties": {"x": {"$ref": "#/$defs/c"}}}
CIRCLE = {"$defs": {"c": {"$ref": "#/$defs/c"}}, "properties": {"x": {"$ref": "#/$defs/c"}}}

CASES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({}, '{"a": 1}', []),
    (CITY, '{"city": "x"}', []),
    (CITY, "{}", ["$.city: required, but missing"]),
    (CITY, '{"city": 1}', ["$.city: expected string, found integer"]),
    ({"properties": {"n": {"type": "integer"}}}, '{"n": 1.0}', []),
    ({"properties": {"n": {"type": "integer"}}}, '{"n": 1.5}', ["$.n: expected integer, found number"]),
    ({"properties": {"n": {"type": "number"}}}, '{"n": 1}', []),
    (
        {"properties": {"n": {"type": ["null", "number"]}}},
        '{"n": true}',
        ["$.n: expected null or number, found boolean"],
    ),
    ({"properties": {"n": {"type": "integer"}}}, f'{{"n": {"9" * 6000}}}', []),
    ({"additionalProperties": False}, '{"a": 1}', ["$.a: no such property"]),
    ({"additionalProperties": {"type": "string"}}, '{"a": 1}', ["$.a: expected string, found integer"]),
    (REFERENCE, '{"x": "a"}', []),
    (REFERENCE, '{"x": "c"}', ['$.x: expected one of ["a", "b"], found another value']),
    (CIRCLE, '{"x": 1}', []),
    ({"properties": {"x": {"const": 1}}}, '{"x": true}', ["$.x: expected integer, found boolean"]),
    (
        {"properties": {"x": {"type": "array", "items": {"type": "string"}}}},
        '{"x": ["a", 2]}',
        ["$.x[1]: expected string, found integer"],
    ),
    (
        {"properties": {"x": {"anyOf": [{"type": "string"}, CITY]}}},
        '{"x": {}}',
        ["$.x: expected a value of one of 2 forms (anyOf), found another"],
    ),
    (
        {"properties": {"x": {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}}},
        '{"x": 1}',
        ["$.x: expected one of [2, 3], found another value"],
    ),
]


@pytest.mark.parametrize(("schema", "arguments", "expected"), CASES)
def test_tells_where_arguments_differ(schema: dict[str, Any], arguments: str, expected: list[str]) -> None:
    assert check(ToolCall("", "f", arguments), tool(schema)) == expected


def test_tells_of_arguments_that_cannot_be_decoded() -> None:
    (line,) = check(ToolCall("", "f", '{"a": '), tool({}))
    assert line.startswith("$: expected a JSON object, found what cannot be decoded")
    (line,) = check(ToolCall("", "f", "[" * 100_000), tool({}))
    assert "RecursionError" in line or "recursion" in line


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


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
schemas = st.recursive(
    st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(sorted(TYPES)), "enum": st.lists(values, min_size=1, max_size=3)}
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]),
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "required": st.lists(st.sampled_from("ab"), unique=True, max_size=2),
            "additionalProperties": st.just(False) | inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(schema=schemas, value=st.dictionaries(st.sampled_from("ab"), values, max_size=2))
@example(schema={"type": "array", "allOf": [{"type": "object"}]}, value={})
@example(schema={"properties": {"a": {"type": "number", "allOf": [{"type": "integer"}]}}}, value={"a": 1})
def test_agrees_with_jsonschema(schema: dict[str, Any], value: dict[str, Any]) -> None:
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (check(ToolCall("", "f", json.dumps(value)), tool(schema)) == []) == expected
