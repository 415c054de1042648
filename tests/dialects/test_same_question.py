"""The same question is the same request, whoever asks it in whatever words."""

import json
from typing import Any

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_responses import OpenAIResponses
from service.explain import differences
from service.generation import GenerationRequest, SamplingParams
from service.normalize import normalize

DEFAULTS = SamplingParams(temperature=0.6, top_p=0.95)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}

OPENAI = {
    "messages": [
        {"role": "developer", "content": "You are terse."},
        {"role": "user", "content": [{"type": "text", "text": "Compare"}, {"type": "text", "text": "two cities."}]},
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "Two calls.",
            "tool_calls": [
                {"id": "call_b7", "type": "function",
                 "function": {"name": "weather", "arguments": json.dumps({"city": "Zürich", "days": 2})}},
                {"id": "call_a9", "type": "function",
                 "function": {"name": "weather", "arguments": '{"city": "Paris",  "days": 12345678901234567890}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_b7", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_a9", "content": "rain\n"},
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": "And?"},
    ],
    "tools": [{"type": "function",
               "function": {"name": "weather", "description": "Looks out.", "parameters": PARAMETERS}}],
    "parallel_tool_calls": False,
    "max_completion_tokens": 100,
    "temperature": 0.5,
    "stop": ["END"],
    "reasoning_effort": "high",
    "user": "me",
    "stream": True,
}  # fmt: skip

RESPONSES = {
    "instructions": "You are terse.",
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Compare"}, {"type": "input_text", "text": "two cities."}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Two calls."}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_x",
            "name": "weather",
            "arguments": '{"city":"Zürich","days":2}',
        },
        {
            "type": "function_call",
            "id": "fc_2",
            "call_id": "call_y",
            "name": "weather",
            "arguments": '{"city":"Paris","days":12345678901234567890}',
        },
        {"type": "function_call_output", "call_id": "call_y", "output": "rain\n"},
        {"type": "function_call_output", "call_id": "call_x", "output": [{"type": "input_text", "text": "sun"}]},
        {"type": "message", "role": "developer", "content": "Be quick."},
        {"type": "message", "role": "user", "content": "And?"},
    ],
    "tools": [{"type": "function", "name": "weather", "description": "Looks out.", "parameters": PARAMETERS}],
    "parallel_tool_calls": False,
    "max_output_tokens": 100,
    "temperature": 0.5,
    "reasoning": {"effort": "high", "summary": "auto"},
    "store": False,
}

ANTHROPIC = {
    "model": "claude-x",
    "system": [{"type": "text", "text": "You are terse.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Compare"}, {"type": "text", "text": "two cities."}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two calls.", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich", "days": 2}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather",
                 "input": {"city": "Paris", "days": 12345678901234567890}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "rain\n"}]},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sun", "is_error": False},
            ],
        },
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": "And?"},
    ],
    "tools": [{"input_schema": dict(reversed(PARAMETERS.items())), "name": "weather", "description": "Looks out."}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "max_tokens": 100,
    "temperature": 0.5,
    "stop_sequences": ["END"],
    "output_config": {"effort": "high"},
    "metadata": {"user_id": "me"},
}  # fmt: skip


def through_anthropic(body: dict[str, Any]) -> GenerationRequest:
    return normalize(AnthropicMessages().decode(json.dumps(body, ensure_ascii=False).encode(), DEFAULTS).request)


def through_openai(body: dict[str, Any]) -> GenerationRequest:
    return normalize(OpenAIChat().decode(json.dumps(body).encode(), DEFAULTS).request)


def through_responses(body: dict[str, Any]) -> GenerationRequest:
    return normalize(OpenAIResponses().decode(json.dumps(body).encode(), DEFAULTS).request)


def test_responses_ask_the_same_as_chat_completions() -> None:
    chat = through_openai({**OPENAI, "stop": None})  # responses have no stop strings
    assert list(differences(chat, through_responses(RESPONSES))) == []


def test_both_dialects_ask_the_same() -> None:
    assert list(differences(through_openai(OPENAI), through_anthropic(ANTHROPIC))) == []
    assert through_openai(OPENAI) == through_anthropic(ANTHROPIC)


def coding_agent(
    prompt: str, *, session: str, checksum: str | None, call_ids: tuple[str, str] = ("a", "b"), swapped: bool = False
) -> dict[str, Any]:
    """A second turn as Claude Code 2.1 sends it, in its shape and in words of our own."""
    results = [
        {"type": "tool_result", "tool_use_id": call_id, "content": f"out {i}", "is_error": False}
        for i, call_id in enumerate(call_ids)
    ]
    header = f"x-anthropic-billing-header: cc_version=2.1.197.{checksum}; cc_entrypoint=cli; cch={checksum};"
    system = [header] if checksum else []
    system += ["You are an agent.", "\nWork in this folder.\n"]
    return {
        "model": "claude-opus-4-8",
        "system": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in system],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>\nIt is Sunday.\n</system-reminder>\n\n"},
                    {"type": "text", "text": prompt},
                ],
            },
            {"role": "system", "content": "There are two agents."},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": call_id, "name": "Bash", "input": {"command": f"echo {i}"}}
                    for i, call_id in enumerate(call_ids)
                ],
            },
            {"role": "user", "content": results[::-1] if swapped else results},
        ],
        "tools": [{"name": "Bash", "description": "Runs it.", "input_schema": PARAMETERS}],
        "metadata": {"user_id": json.dumps({"session_id": session})},
        "max_tokens": 64000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    }


def test_two_runs_of_one_prompt_are_one_request() -> None:
    first = through_anthropic(coding_agent("list files", session="1", checksum="1c0"))
    again = coding_agent("list files", session="2", checksum="9fe", call_ids=("d", "c"), swapped=True)
    assert through_anthropic(again) == first
    assert through_anthropic(coding_agent("list files", session="3", checksum=None)) == first


def test_two_prompts_part_where_the_prompt_begins() -> None:
    one, other = (through_anthropic(coding_agent(p, session=p, checksum=p)) for p in ("first prompt", "second"))
    found = next(differences(one, other))
    assert found.path == "messages[1].content"
    assert found.character == len("<system-reminder>\nIt is Sunday.\n</system-reminder>\n\n\n")
