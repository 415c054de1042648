"""A field that nobody has published is in the response-cache key, at any depth. Fields without meaning are not."""

import json
import re
from typing import Any

import msgspec
import pytest

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import ClientRequest, Dialect
from service.dialects.json_body import MAX_VALUES
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_completions import OpenAICompletions
from service.dialects.openai_responses import OpenAIResponses
from service.dialects.openai_responses.kept import KeptResponse
from service.errors import BadRequest
from service.generation import SamplingParams

NEW = "field_of_tomorrow"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
MARK = {"type": "ephemeral"}
WITHOUT_MEANING = {
    "annotations", "cache_control", "caller", "citations", "data", "description", "display", "eager_input_streaming",
    "id", "include_obfuscation", "index", "logprobs", "media_type", "prompt_cache_breakpoint", "signature", "status",
    "tool_use_id",
}  # fmt: skip
FREE_FORM = {"arguments", "image_url", "input_schema", "parameters", "schema", *WITHOUT_MEANING}

MESSAGES = {
    "max_tokens": 5,
    "system": [{"type": "text", "text": "s", "cache_control": MARK}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "q", "cache_control": MARK, "citations": [{"type": "char_location"}]},
                {"type": "document", "source": {"type": "text", "data": "d"}, "citations": {"enabled": True}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
                {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "c"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": "q", "caller": MARK},
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": "none"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {}, "caller": MARK},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "r"}, {"type": "tool_reference", "tool_name": "f"}],
                    "cache_control": MARK,
                }
            ],
        },
        {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}]},
        {"role": "user", "content": "go on", "output_config": {"effort": "low"}},
    ],
    "tools": [{"name": "f", "input_schema": SCHEMA, "cache_control": MARK, "eager_input_streaming": True}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
}
CHAT = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "q", "cache_control": MARK, "prompt_cache_breakpoint": MARK},
                {"type": "image_url", "image_url": {"url": "u"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "r"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": {}}},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}, "cache_control": MARK}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "description": "d"}},
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "stream_options": {"include_usage": True, "include_obfuscation": False},
}
FUNCTIONS = {
    "messages": [{"role": "user", "content": "q"}],
    "functions": [{"name": "f", "parameters": SCHEMA}],
    "function_call": {"name": "f"},
}
RESPONSES = {
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "q", "prompt_cache_breakpoint": MARK}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "m",
            "status": "completed",
            "content": [{"type": "output_text", "text": "a", "annotations": [MARK], "logprobs": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
        {"type": "additional_tools", "tools": [{"type": "function", "name": "g", "parameters": SCHEMA}]},
    ],
    "tools": [
        {"type": "function", "name": "f", "parameters": SCHEMA},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "i"}]},
        {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "regex", "definition": "a+"}},
    ],
    "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]},
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "description": "d"}},
}
COMPLETIONS = {
    "prompt": "p",
    "response_format": {"type": "json_object"},
    "stream_options": {"include_usage": True, "include_obfuscation": False},
}
BODIES: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "messages": (AnthropicMessages(), MESSAGES),
    "chat": (OpenAIChat(), CHAT),
    "functions": (OpenAIChat(), FUNCTIONS),
    "responses": (OpenAIResponses(), RESPONSES),
    "completions": (OpenAICompletions(), COMPLETIONS),
}


def decoded(dialect: Dialect, body: Any) -> ClientRequest:
    return dialect.decode(json.dumps(body).encode(), SamplingParams())


def marked(value: Any, at: str, paths: set[str]) -> Any:
    """Adds the new field to every object that is not free-form, and its path to `paths`."""
    if isinstance(value, list):
        return [marked(item, f"{at}[{i}]", paths) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    before = f"{at}." if at else ""
    paths.add(before + NEW)
    known = {
        name: item if name in FREE_FORM or item == {} else marked(item, before + name, paths)
        for name, item in value.items()
    }
    return {**known, NEW: len(paths)}


def without(value: Any, names: set[str]) -> Any:
    if isinstance(value, list):
        return [without(item, names) for item in value]
    if isinstance(value, dict):
        return {name: without(item, names) for name, item in value.items() if name not in names}
    return value


@pytest.mark.parametrize(("dialect", "body"), BODIES.values(), ids=BODIES)
def test_a_new_field_at_any_depth_is_in_the_key_and_changes_nothing_else(
    dialect: Dialect, body: dict[str, Any]
) -> None:
    paths: set[str] = set()
    asked, known = decoded(dialect, marked(body, "", paths)), decoded(dialect, body)
    assert len(paths) > 2
    assert set(asked.request.unread_fields) == paths
    assert set(asked.unknown_fields) == {re.sub(r"\[\d+\]", "[]", path) for path in paths}
    assert msgspec.structs.replace(asked.request, unread_fields={}) == known.request
    assert (known.request.unread_fields, known.unknown_fields) == ({}, ())


@pytest.mark.parametrize(("dialect", "body"), BODIES.values(), ids=BODIES)
def test_fields_without_meaning_are_not_in_the_key(dialect: Dialect, body: dict[str, Any]) -> None:
    bare = without(body, WITHOUT_MEANING - {"id", "data", "tool_use_id"})
    assert decoded(dialect, bare).request == decoded(dialect, body).request


def test_a_new_field_of_tools_that_are_remembered_is_in_the_key() -> None:
    dialect, body = OpenAIChat(), marked(CHAT, "", set())
    assert decoded(dialect, body).request == decoded(dialect, body).request


def test_fields_of_a_tool_that_is_left_out_are_not_in_the_key() -> None:
    computer = {"type": "computer_20251124", "name": "computer", "display_width_px": 1}
    hosted = {"type": "image_generation", "output_format": "png"}
    for dialect, body, tool in ((AnthropicMessages(), MESSAGES, computer), (OpenAIResponses(), RESPONSES, hosted)):
        asked = decoded(dialect, {**body, "tools": [*body["tools"], tool]})
        assert asked.absent_tools
        assert (asked.request.unread_fields, asked.unknown_fields) == ({}, ())


def test_a_name_that_looks_like_a_path_is_another_field() -> None:
    item = {"role": "user", "content": "u"}
    bodies = [
        {"input": [{**item, NEW: 1}]},
        {"input": [item], f"input[0].{NEW}": 1},
        {"input": [item], f'"input[0].{NEW}"': 1},
        {"input": [item], "text": {NEW: 1}},
        {"input": [item], f"text.{NEW}": 1},
    ]
    asked = [decoded(OpenAIResponses(), body).request.unread_fields for body in bodies]
    assert asked[:2] == [{f"input[0].{NEW}": "1"}, {f'"input[0].{NEW}"': "1"}]
    assert len({*map(str, asked)}) == len(bodies)


def test_new_fields_of_several_kept_items_are_all_in_the_key() -> None:
    dialect, items = OpenAIResponses(), [{"role": "user", "content": "u", NEW: i} for i in (1, 9)]
    kept = tuple(msgspec.Raw(msgspec.json.encode(item)) for item in items)
    dialect.kept.add("", "resp_1", KeptResponse(kept, msgspec.Raw(b'{"output":[]}')))
    asked = decoded(dialect, {"input": "more", "previous_response_id": "resp_1"})
    assert asked.request.unread_fields == {
        f"previous_response_id[0].{NEW}": "1",
        f"previous_response_id[1].{NEW}": "9",
    }
    assert asked.unknown_fields == (f"previous_response_id[].{NEW}",)


def test_numbers_beside_a_new_field_are_not_rounded() -> None:
    body = """{"max_tokens": 5, "messages": [{"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 0.10000000000000000001}, "new": 1}]}]}"""
    (message,) = AnthropicMessages().decode(body.encode(), SamplingParams()).request.messages
    assert message.tool_calls[0].arguments == '{"x": 0.10000000000000000001}'


def test_the_work_that_a_new_field_makes_is_bounded() -> None:
    blocks = [{"type": "text", "text": ""}] * (MAX_VALUES + 1)
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": blocks}]}
    assert decoded(AnthropicMessages(), body).request.messages
    with pytest.raises(BadRequest, match="at most 100000 objects and lists"):
        decoded(AnthropicMessages(), {**body, NEW: 1})


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "text", NEW: 1}, "messages[0].content[0].text"),
        ({"type": "text", "text": 5, NEW: 1}, "messages[0].content[0].text"),
        ({"type": NEW, NEW: 1}, "messages[0].content[0].type"),
        ({NEW: 1}, "messages[0].content[0].type"),
        ({"type": 5, NEW: 1}, "messages[0].content[0].type"),
    ],
)
def test_an_error_beside_a_new_field_names_its_place(part: dict[str, Any], param: str) -> None:
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": [part]}], NEW: 1}
    with pytest.raises(BadRequest) as refused:
        decoded(AnthropicMessages(), body)
    assert refused.value.param == param
