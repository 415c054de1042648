"""How calls are compared with the schema of their tool; jsonschema, as it is, is the judge of random ones."""

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.generation import Tool, ToolCall
from service.tool_calling.arguments import mismatches
from service.tool_calling.schema import TYPES
from tests.examples import examples


def tool(schema: dict[str, Any]) -> Tool:
    return Tool(name="f", parameters=schema)


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
REFERENCE = {"$defs": {"c": {"enum": ["a", "b"]}}, "properties": {"x": {"$ref": "#/$defs/c"}}}
CIRCLE = {"$defs": {"c": {"$ref": "#/$defs/c"}}, "properties": {"x": {"$ref": "#/$defs/c"}}}

CASES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({}, '{"a": 1}', []),
    (CITY, '{"city": "x"}', []),
    (CITY, "{}", ["$: required"]),
    (CITY, '{"city": 1}', ["$.city: type"]),
    ({"properties": {"n": {"type": "integer"}}}, '{"n": 1.0}', []),
    ({"properties": {"n": {"type": "integer"}}}, '{"n": 1.5}', ["$.n: type"]),
    ({"properties": {"n": {"type": "number"}}}, '{"n": 1}', []),
    ({"properties": {"n": {"type": ["null", "number"]}}}, '{"n": true}', ["$.n: type"]),
    ({"properties": {"n": {"type": "integer"}}}, f'{{"n": {"9" * 6000}}}', []),
    ({"additionalProperties": False}, '{"a": 1}', ["$: additionalProperties"]),
    ({"additionalProperties": {"type": "string"}}, '{"a": 1}', ["$.a: type"]),
    (REFERENCE, '{"x": "a"}', []),
    (REFERENCE, '{"x": "c"}', ["$.x: enum"]),
    ({"properties": {"x": {"const": 1}}}, '{"x": true}', ["$.x: const"]),
    ({"properties": {"x": {"type": "array", "items": {"type": "string"}}}}, '{"x": ["a", 2]}', ["$.x[1]: type"]),
    ({"properties": {"x": {"anyOf": [{"type": "string"}, CITY]}}}, '{"x": {}}', ["$.x: anyOf"]),
    ({"properties": {"x": {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}}}, '{"x": 1}', ["$.x: enum"]),
]


@pytest.mark.parametrize(("schema", "arguments", "expected"), CASES)
def test_names_where_arguments_differ(schema: dict[str, Any], arguments: str, expected: list[str]) -> None:
    assert mismatches(ToolCall("", "f", arguments), tool(schema)) == expected


@pytest.mark.parametrize("arguments", ['{"a": ', "[" * 100_000, ""])
def test_arguments_that_cannot_be_decoded_do_not_fit(arguments: str) -> None:
    assert mismatches(ToolCall("", "f", arguments), tool({})) == ["$: JSON"]


BRANCHING = {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "a circle": (CIRCLE, '{"x": 1}'),
    "another document": ({"$ref": "https://127.0.0.1:9/schema.json"}, "{}"),
    "a file": ({"properties": {"x": {"$ref": "file:///etc/passwd"}}}, '{"x": 1}'),
    "no such type": ({"properties": {"x": {"type": "no such type"}}}, '{"x": 1}'),
    "not a schema": ({"properties": 5, "required": 7, "anyOf": "x"}, '{"x": 1}'),
    "branches at every depth": (BRANCHING, '{"a": ' * 100 + "1" + "}" * 100),
    "an endless pattern": ({"properties": {"x": {"pattern": "^(a+)+$"}}}, json.dumps({"x": "a" * 40 + "!"})),
    "an endless pattern of names": (
        {"patternProperties": {"^(a+)+$": False}, "additionalProperties": False},
        json.dumps({"a" * 40 + "!": 1}),
    ),
    "many items that are unlike": (
        {"properties": {"x": {"uniqueItems": True}}},
        json.dumps({"x": [{"a": i} for i in range(20_000)]}),
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_schema_that_cannot_be_judged_is_no_mismatch_and_soon_given_up(kind: str) -> None:
    schema, arguments = HOSTILE[kind]
    started = time.process_time()
    assert mismatches(ToolCall("", "f", arguments), tool(schema)) == []
    assert time.process_time() - started < 2


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


@examples(200)
@given(schema=schemas, value=st.dictionaries(st.sampled_from("ab"), values, max_size=2))
@example(schema={"type": "array", "allOf": [{"type": "object"}]}, value={})
@example(schema={"properties": {"a": {"type": "number", "allOf": [{"type": "integer"}]}}}, value={"a": 1})
def test_agrees_with_jsonschema(schema: dict[str, Any], value: dict[str, Any]) -> None:
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (mismatches(ToolCall("", "f", json.dumps(value)), tool(schema)) == []) == expected
