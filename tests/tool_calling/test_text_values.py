"""Strict tools in formats whose values have no quotes: what may be written is what the schema says."""

from typing import Any

import jsonschema
import msgspec
import pytest
from llguidance import LLTokenizer

from service.generation import GenerationRequest, Tool, ToolCall, ToolChoice
from service.tool_calling import FAMILIES, parse
from service.tool_calling.grammar import answer_grammar
from tests.tool_calling.documents import accepts, spell, walk

TAGGED = ["qwen3_coder", "glm", "minimax"]
DEFINITIONS = {"$defs": {"code": {"type": "string", "pattern": "^[A-Z]{3}$"}}}


def tool(schema: Any, *, strict: bool = True) -> Tool:
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"], **DEFINITIONS}
    return Tool(name="f", strict=strict, parameters=parameters)


def grammar(tools: tuple[Tool, ...], family: str) -> str:
    request = GenerationRequest(messages=(), tools=tools, tool_choice=ToolChoice("required", "f"))
    return answer_grammar(request, family, spell, None)


def call_with(family: str, value: Any) -> str:
    arguments = msgspec.json.encode({"a": value}).decode()
    return FAMILIES[family].forms[0].render([ToolCall("1", "f", arguments)])


CASES: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": "string", "pattern": "^[a-z]+$"}, ["abc"], ["", "aBc", "abc\n", "abc</x>"]),
    ({"type": "string", "pattern": "b+"}, ["b", "abba", "a\nb\n</p>"], ["", "ac"]),
    ({"type": "string", "pattern": "^a|b$"}, ["ac", "cb", "a\nc"], ["cbc", "ca"]),
    ({"type": "string", "pattern": "^(?:a|b)/[/^$|]+$"}, ["a//", "b/^$|"], ["a", "a/x"]),
    ({"type": "string", "pattern": "^a", "minLength": 3, "maxLength": 4}, ["abc", "abcd"], ["ab", "abcde", "bcd"]),
    ({"type": "string", "minLength": 2}, ["é😀", "x" * 60], ["", "x"]),
    ({"pattern": "^x"}, ["xy"], ["y"]),
    ({"type": "string", "pattern": r"^\d[\w[&~&]+$"}, ["1a", "9[&"], ["٣a", "1é", "1"]),
    ({"$ref": "#/$defs/code"}, ["ABC"], ["AB", "abc"]),
    ({"anyOf": [{"$ref": "#/$defs/code"}, {"type": "null"}]}, ["ABC", None], ["abc", "nul"]),
    ({"type": ["string", "null"], "minLength": 5}, ["abcde", None], ["abc"]),
    ({"type": ["string", "integer"], "pattern": "^#"}, ["#1", 12, -1], ["1.5", "x"]),
    ({"type": ["string", "boolean", "number"], "maxLength": 0}, ["", True, 1.5e-07], ["x", "True"]),
    ({"anyOf": [{"enum": ["red", "a+b"]}, {"const": None}]}, ["red", "a+b", None], ["aab", "redd", ""]),
    ({"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]}, ["ab", "b a"], ["a", "bb"]),
    ({"type": "string", "format": "date"}, ["2024-12-31", "1999-02-28"], ["2024-13-01", "2023-02-30", "2024-1-1"]),
    (
        {"type": "string", "format": "date-time"},
        ["2024-12-31T23:59:59Z", "2024-01-01T00:00:00.5+02:00"],
        ["2024-12-31"],
    ),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567", "x" * 36]),
    ({"type": "string", "format": "email"}, ["a.b+c@example.org"], ["a@b", "@example.org", "a b@example.org"]),
    ({"type": "string", "format": "ipv4"}, ["127.0.0.1", "255.249.10.0"], ["256.1.1.1", "1.2.3", "01.1.1.1"]),
    ({"type": "string", "format": "duration"}, ["P1Y2M3DT4H5M6S", "P4W", "PT1M"], ["P", "PT", "P1Y2D", "1D"]),
]


@pytest.mark.parametrize("family", TAGGED)
@pytest.mark.parametrize(("schema", "right", "wrong"), CASES, ids=[str(schema) for schema, _, _ in CASES])
def test_strict_texts_are_held_to_their_schema(
    tokenizer: LLTokenizer, family: str, schema: Any, right: list[Any], wrong: list[Any]
) -> None:
    offered = tool(schema)
    rules = grammar((offered,), family)
    for value in right:
        text = call_with(family, value)
        assert accepts(tokenizer, rules, text), text
        (call,) = parse(text, [offered], family).tool_calls
        assert msgspec.json.decode(call.arguments) == {"a": value}
    for value in wrong:
        assert not accepts(tokenizer, rules, call_with(family, value)), value


WALKED = {
    "type": "object",
    "properties": {
        "on": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "time"},
        "host": {"type": "string", "format": "ipv6"},
        "link": {"type": "string", "format": "uri", "maxLength": 30},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{1,3}$"},
        "note": {"type": "string", "minLength": 3, "maxLength": 8},
        "kind": {"anyOf": [{"enum": ["x", "y"]}, {"type": "null"}]},
    },
    "required": ["on", "at", "host", "code", "note", "kind"],
}


@pytest.mark.parametrize("family", TAGGED)
def test_whatever_may_be_written_is_valid(tokenizer: LLTokenizer, family: str) -> None:
    offered = Tool(name="f", strict=True, parameters=WALKED)
    rules = grammar((offered,), family)
    documents = [text for seed in range(10) if (text := walk(tokenizer, rules, seed, at_most=600)) is not None]
    assert len(documents) >= 5
    for text in documents:
        (call,) = parse(text, [offered], family).tool_calls
        arguments = msgspec.json.decode(call.arguments)
        jsonschema.validate(arguments, WALKED, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "string", "format": "phone"}, r"the format 'phone' \(known are date, "),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, "either text or of type 'object'"),
        ({"type": ["string", "integer"], "minimum": 3}, "'minimum' of a value that may be text"),
        ({"type": "string", "not": {"pattern": "x"}}, "'not' beside text"),
        ({"anyOf": [{"type": "string"}, {"allOf": [{"$ref": "#"}]}]}, "either text or of type 'object'"),
    ],
)
def test_what_text_cannot_be_held_to_is_refused(schema: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^f\.a: this model's format of calls cannot enforce .*{reason}"):
        grammar((tool(schema),), "glm")
    assert grammar((tool(schema, strict=False),), "glm")


def test_a_schema_in_a_circle_is_refused() -> None:
    circle = {"$defs": {"code": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/code"}]}}}
    offered = Tool(name="f", strict=True, parameters={"properties": {"a": {"$ref": "#/$defs/code"}}, **circle})
    with pytest.raises(ValueError, match="refers to itself"):
        grammar((offered,), "minimax")


@pytest.mark.parametrize("family", TAGGED)
def test_of_other_tools_choices_and_lengths_are_kept(tokenizer: LLTokenizer, family: str) -> None:
    for schema, right, wrong in (
        ({"enum": ["a", "b"]}, "b", "c"),
        ({"type": "string", "maxLength": 2, "pattern": "(?=x)", "format": "phone"}, "zz", "zzz"),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, "anything", None),
    ):
        rules = grammar((tool(schema, strict=False),), family)
        assert accepts(tokenizer, rules, call_with(family, right))
        assert wrong is None or not accepts(tokenizer, rules, call_with(family, wrong))
