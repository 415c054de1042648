"""mlx-lm's own parsers as an oracle: what our forms write, both read alike."""

import importlib
import json
from typing import Any

import pytest

from service.generation import Tool, ToolCall
from service.tool_calling import FAMILIES, parse

ORACLES = {
    "gemma4": "gemma4",
    "function_gemma": "function_gemma",
    "longcat": "longcat",
    "glm": "glm47",
    "kimi_k2": "kimi_k2",
    "kimi_k3": "kimi_k3",
    "minicpm5": "minicpm5",
    "minimax": "minimax_m2",
    "muse": "muse_spark",
    "qwen3_coder": "qwen3_coder",
    "lfm2": "pythonic",
    "hermes": "json_tools",
    "mistral": "mistral",
}
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"city": "Paris"},
    {"city": "two words, {and} [more]", "days": 3},
    {"city": "x", "days": 3, "detail": True},
)
WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "detail": {"type": "boolean"}},
    },
)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=json.dumps)
@pytest.mark.parametrize("family", ORACLES)
def test_both_read_a_call_alike(family: str, arguments: dict[str, Any]) -> None:
    if (family == "function_gemma" and "{" in arguments.get("city", "")) or (family == "longcat" and not arguments):
        pytest.skip("mlx-lm does not read this")
    oracle = importlib.import_module(f"mlx_lm.tool_parsers.{ORACLES[family]}")
    text = FAMILIES[family].forms[0].render([ToolCall("", "get_weather", json.dumps(arguments))])
    start, end = text.index(oracle.tool_call_start), oracle.tool_call_end
    body = text[start + len(oracle.tool_call_start) :]
    body = body[: body.rindex(end)] if end else body
    tools = [{"type": "function", "function": {"name": WEATHER.name, "parameters": WEATHER.parameters}}]
    theirs = oracle.parse_tool_call(body, tools)
    theirs = theirs[0] if isinstance(theirs, list) else theirs
    (ours,) = parse(text, [WEATHER], family).tool_calls
    given = theirs["arguments"]
    assert (theirs["name"], json.loads(given) if isinstance(given, str) else given) == ("get_weather", arguments)
    assert (ours.name, json.loads(ours.arguments)) == ("get_weather", arguments)
