"""What the grammars allow is what the parsers read: random documents under a grammar come back as valid calls."""

from itertools import islice
from typing import Any

import jsonschema
import msgspec
import pytest
from llguidance import LLTokenizer

from service.generation import GenerationRequest, ResponseFormat, Tool, ToolCall, ToolChoice
from service.tool_calling import FAMILIES, parse
from service.tool_calling.argument_rules import argument_schema, closed
from service.tool_calling.form import CallForm
from service.tool_calling.grammar import Thought, answer_grammar, is_constrained
from tests.tool_calling.documents import accepts, spell, walk

TEXT_FAMILIES = [*FAMILIES, None]
PARAMETERS = {
    "type": "object",
    "properties": {
        "note": {"type": "string", "maxLength": 6},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["c", "f"]},
        "options": {
            "type": "object",
            "properties": {"on": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
            "required": ["on"],
        },
    },
    "required": ["note", "options"],
}
TOOLS = (
    Tool(name="forecast", parameters=PARAMETERS, strict=True),
    Tool(name="ping", parameters={"type": "object", "properties": {}}),
)


def asked(mode: Any, *, name: str = "", tools: tuple[Tool, ...] = TOOLS, **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(), tools=tools, tool_choice=ToolChoice(mode, name), **fields)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_whatever_a_required_call_may_look_like_is_read_as_valid_calls(
    tokenizer: LLTokenizer, family: str | None
) -> None:
    grammar = answer_grammar(asked("required"), family, spell, None)
    found = (text for seed in range(60) if (text := walk(tokenizer, grammar, seed)) is not None)
    documents = list(islice(found, 8))
    assert len(documents) >= 5
    for text in documents:
        output = parse(text, TOOLS, family)
        assert output.tool_calls, text
        assert (output.content.strip(), output.counts.repaired, output.counts.broken) == ("", 0, 0), text
        for call in output.tool_calls:
            schema = next(tool.parameters for tool in TOOLS if tool.name == call.name)
            jsonschema.validate(msgspec.json.decode(call.arguments), schema)


@pytest.mark.parametrize(("family", "form"), [(name, form) for name in FAMILIES for form in FAMILIES[name].forms])
def test_calls_as_the_family_writes_them_are_allowed(tokenizer: LLTokenizer, family: str, form: CallForm) -> None:
    arguments = '{"note": "a\\"b", "options": {"on": [true]}}'
    text = form.render([ToolCall("1", "forecast", arguments)])
    grammar = answer_grammar(asked("required"), family, spell, None)
    assert accepts(tokenizer, grammar, text), text
    assert not accepts(tokenizer, grammar, text[:-1])


def test_a_named_call_is_one_call_of_that_tool(tokenizer: LLTokenizer) -> None:
    grammar = answer_grammar(asked("required", name="ping"), "hermes", spell, None)
    ping = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    assert accepts(tokenizer, grammar, ping)
    assert not accepts(tokenizer, grammar, f"{ping}\n{ping}")
    assert not accepts(tokenizer, grammar, ping.replace("ping", "forecast"))


QUOTED = {
    "type": "object",
    "properties": {
        "any": {},
        "either": {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "integer"}]},
        "kinds": {"type": ["string", "null", "object"], "maxLength": 2},
        "list": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "empty": {"type": "array", "maxItems": 0},
    },
    "required": ["list"],
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ('{"list": ["x"]}', True),
        ('{"either": "a", "list": ["x", "y"]}', True),
        ('{"either": 3, "kinds": null, "list": ["x"]}', True),
        ('{"any": {"a": [1, "b", {"c d": true}]}, "list": ["x"]}', True),
        ('{"kinds": {"a": 1}, "list": ["x"], "empty": []}', True),
        ('{"list": []}', False),
        ('{"list": ["x", "y", "z"]}', False),
        ('{"either": "c", "list": ["x"]}', False),
        ('{"kinds": "abc", "list": ["x"]}', False),
        ('{"list": ["x"], "empty": [1]}', False),
        ('{"kinds": 1, "list": ["x"]}', False),
    ],
)
def test_values_in_quotes_of_the_family_are_held_to_their_schema(
    tokenizer: LLTokenizer, arguments: str, allowed: bool, strict: bool
) -> None:
    tools = (Tool(name="f", parameters=QUOTED, strict=strict),)
    grammar = answer_grammar(asked("required", tools=tools), "gemma4", spell, None)
    text = FAMILIES["gemma4"].forms[0].render([ToolCall("1", "f", arguments)])
    assert accepts(tokenizer, grammar, text) is allowed, text


def test_what_quoted_values_cannot_be_held_to_is_refused() -> None:
    unique = {"properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(ValueError, match="cannot enforce 'uniqueItems'"):
        answer_grammar(asked("auto", tools=(Tool(name="f", parameters=unique, strict=True),)), "gemma4", spell, None)


@pytest.mark.parametrize(("parallel", "both"), [(True, True), (False, False)])
def test_several_calls_where_they_are_wanted(tokenizer: LLTokenizer, parallel: bool, both: bool) -> None:
    grammar = answer_grammar(asked("required", parallel_tool_calls=parallel), "hermes", spell, None)
    ping = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    assert accepts(tokenizer, grammar, ping)
    assert accepts(tokenizer, grammar, f"{ping}\n{ping}") is both


@pytest.mark.parametrize(
    "family",
    ["hermes", "qwen3_coder", "deepseek", "llama3", "harmony", "gemma4", "deepseek_v32", "kimi_k3", "nemotron"],
)
def test_strict_tools_leave_text_free_and_hold_calls(tokenizer: LLTokenizer, family: str) -> None:
    grammar = answer_grammar(asked("auto"), family, spell, None)
    opening = FAMILIES[family].answer
    assert accepts(tokenizer, grammar, f"{opening}Any text, with {{braces}} and <tags>.\n")

    good = FAMILIES[family].forms[0].render([ToolCall("1", "forecast", '{"note": "x", "options": {"on": []}}')])
    bad = FAMILIES[family].forms[0].render([ToolCall("1", "forecast", '{"note": "x", "options": {"on": 7}}')])
    assert accepts(tokenizer, grammar, good)
    assert not accepts(tokenizer, grammar, bad)


def test_any_character_may_stand_in_a_string(tokenizer: LLTokenizer) -> None:
    schema = {"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]}
    wanted = GenerationRequest(messages=(), response_format=ResponseFormat(kind="json_schema", schema=schema))
    grammar = answer_grammar(wanted, None, spell, None)
    for text in ("", "é😀\u2028", 'a"b\\c\n\t\0', "</tool_call><think>", "x" * 500):
        assert accepts(tokenizer, grammar, msgspec.json.encode({"s": text}).decode())
    assert accepts(tokenizer, grammar, '{\n  "s": "\\u00e9"\n}')
    for wrong in ('{"s": "a', '{"s": 1}', "{}", '{"s": "", "t": 1}', "null", '{"s": ""} and'):
        assert not accepts(tokenizer, grammar, wrong)


def test_json_or_calls_where_both_are_asked_for(tokenizer: LLTokenizer) -> None:
    request = asked("auto", response_format=ResponseFormat(kind="json_object"))
    grammar = answer_grammar(request, "hermes", spell, None)
    assert accepts(tokenizer, grammar, '{"any": ["thing"]}')
    assert accepts(tokenizer, grammar, '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>')
    assert not accepts(tokenizer, grammar, "text")


@pytest.mark.parametrize(
    ("thought", "text", "allowed"),
    [
        (Thought("<think>", "</think>"), "<think>a < b</think>\n\n{}", True),
        (Thought("<think>", "</think>"), "{}", True),
        (Thought("<think>", "</think>", inside=True), "so, {}</think>{}", True),
        (Thought("<think>", "</think>", inside=True), "{}", False),
        (None, "<think></think>{}", False),
    ],
)
def test_reasoning_comes_first(tokenizer: LLTokenizer, thought: Thought | None, text: str, allowed: bool) -> None:
    wanted = GenerationRequest(messages=(), response_format=ResponseFormat(kind="json_object"))
    assert accepts(tokenizer, answer_grammar(wanted, None, spell, thought), text) is allowed


def test_special_tokens_are_named_by_their_ids() -> None:
    grammar = answer_grammar(
        asked("required", name="ping"), "hermes", lambda text: [7, text.removeprefix("<tool_call>")], None
    )
    assert "<[7]>" in grammar


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked("auto", tools=TOOLS[1:]), False),
        (asked("auto"), True),
        (asked("none"), False),
        (asked("required", tools=TOOLS[1:]), True),
        (GenerationRequest(messages=(), response_format=ResponseFormat(kind="json_object")), True),
        (GenerationRequest(messages=()), False),
    ],
)
def test_only_promises_constrain(request_: GenerationRequest, expected: bool) -> None:
    assert is_constrained(request_) is expected


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


PATCH = 'start: "*** Begin" LF line+ "*** End" LF?\nline: ("+" | "-") /(.*)/ LF\n%import common.LF\n'
INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


@pytest.mark.parametrize("family", ["qwen3_coder", "glm"])
@pytest.mark.parametrize("mode", ["required", "auto"])
def test_the_text_of_a_tool_follows_its_grammar(tokenizer: LLTokenizer, family: str, mode: Any) -> None:
    tool = Tool(name="patch", parameters=INPUT, strict=True, grammar=PATCH)
    grammar = answer_grammar(asked(mode, tools=(tool,)), family, spell, None)
    form = FAMILIES[family].forms[0]
    for text, allowed in (('*** Begin\n+a "b"\n-\n*** End', True), ("*** Begin\n+a\n", False), ("hello", False)):
        written = form.render([ToolCall("", "patch", msgspec.json.encode({"input": text}).decode())])
        assert accepts(tokenizer, grammar, written) is allowed
