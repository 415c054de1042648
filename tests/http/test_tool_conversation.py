"""Tools over two turns with the protocols' own clients, on a model that was never trained: what holds is the server's
doing. The same conversation is then had again from the response cache."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from service.app import create_app
from service.executor.mlx_executor import MlxExecutor
from service.profile import ModelProfile
from tests.serving import client_of, running, settings

SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "minLength": 1, "maxLength": 8},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["place", "days", "unit"],
    "additionalProperties": False,
}
QUESTION = {"role": "user", "content": "How is the weather?"}
RESULT = "sunny, 21 degrees"

Turns = Callable[[str, bool], Awaitable[list[str]]]


async def openai_turns(url: str, stream: bool) -> list[str]:
    """Both turns; what the response cache did for each."""
    tools: Any = [{"type": "function", "function": {"name": "forecast", "parameters": SCHEMA}}]
    named: Any = {"type": "function", "function": {"name": "forecast"}}
    statuses = []
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:

        async def ask(messages: list[Any], choice: Any, max_tokens: int) -> dict[str, Any]:
            fields: dict[str, Any] = {"model": "default", "messages": messages, "tools": tools, "tool_choice": choice}
            fields |= {"temperature": 0, "max_tokens": max_tokens, "stream": stream}
            response = await client.chat.completions.with_raw_response.create(**fields)
            statuses.append(response.headers["cache-status"])
            answer: Any = response.parse()
            if not stream:
                assert answer.choices[0].finish_reason == ("tool_calls" if choice is named else "length")
                return dict(answer.choices[0].message.model_dump(exclude_none=True))
            return await _openai_message(answer)

        called = await ask([QUESTION], named, 200)
        (call,) = called["tool_calls"]
        assert call["function"]["name"] == "forecast"
        jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
        result = {"role": "tool", "tool_call_id": call["id"], "content": RESULT}
        said = await ask([QUESTION, called, result], "none", 5)
        assert said["content"]
        assert "tool_calls" not in said
    return statuses


async def _openai_message(chunks: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    pieces = 0
    async for chunk in chunks:
        delta = chunk.choices[0].delta
        message["content"] += delta.content or ""
        for part in delta.tool_calls or ():
            if part.id is not None:
                function = {"name": part.function.name, "arguments": ""}
                message["tool_calls"] = [{"id": part.id, "type": "function", "function": function}]
            message["tool_calls"][part.index]["function"]["arguments"] += part.function.arguments
            pieces += 1
    assert pieces == 0 or pieces >= 2
    return message


async def anthropic_turns(url: str, stream: bool) -> list[str]:
    tools: Any = [{"name": "forecast", "input_schema": SCHEMA}]
    named: Any = {"type": "tool", "name": "forecast"}
    statuses = []
    async with AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:

        async def ask(messages: list[Any], choice: Any, max_tokens: int) -> Any:
            fields: dict[str, Any] = {"model": "default", "messages": messages, "tools": tools, "tool_choice": choice}
            fields |= {"max_tokens": max_tokens}
            if stream:
                async with client.messages.stream(**fields) as events:
                    statuses.append(events.response.headers["cache-status"])
                    return await events.get_final_message()
            response = await client.messages.with_raw_response.create(**fields)
            statuses.append(response.headers["cache-status"])
            return await response.parse()

        called = await ask([QUESTION], named, 200)
        assert called.stop_reason == "tool_use"
        (call,) = called.content
        assert (call.type, call.name) == ("tool_use", "forecast")
        jsonschema.validate(call.input, SCHEMA)
        turn = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in called.content]}
        result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
        said = await ask([QUESTION, turn, {"role": "user", "content": [result]}], {"type": "none"}, 5)
        assert [block.type for block in said.content] == ["text"]
    return statuses


@asynccontextmanager
async def served(model: Path, tmp_path: Path) -> AsyncIterator[str]:
    # A stream opens with its first keep-alive. On a busy machine the model loads for longer than the default.
    configured = settings(tmp_path, keep_alive_interval_seconds=60)
    profile = ModelProfile(id="tiny", fingerprint="tiny", context_length=2048)
    app = create_app(configured, executor=MlxExecutor(model, profile, configured))
    async with running(app, configured) as url:
        yield url


@pytest.mark.model
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("turns", [openai_turns, anthropic_turns])
async def test_two_turns_with_a_tool(turns: Turns, stream: bool, tiny_model: Path, tmp_path: Path) -> None:
    async with served(tiny_model, tmp_path) as url:
        miss = "anyclaude; fwd=uri-miss" + ("" if stream else "; stored")
        assert await turns(url, stream) == [miss] * 2
        assert await turns(url, not stream) == ["anyclaude; hit"] * 2


@pytest.mark.model
async def test_a_schema_that_cannot_be_enforced_is_refused_before_the_stream_opens(
    tiny_model: Path, tmp_path: Path
) -> None:
    wanted = {"name": "x", "schema": {"type": "array", "uniqueItems": True}}
    body = {"messages": [QUESTION], "stream": True, "response_format": {"type": "json_schema", "json_schema": wanted}}
    async with served(tiny_model, tmp_path) as url, client_of(url) as client:
        refused = await client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == "response_format.json_schema.schema"
    assert "uniqueItems" in error["message"]
