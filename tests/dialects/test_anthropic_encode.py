import json
from typing import Any

import pytest
from anthropic.types import Message as ClientMessage
from anthropic.types import MessageTokensCount

from service import errors
from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import Reply
from service.generation import Choice, Completion, FinishReason, Part, Reasoning, Text, ToolCall, Usage

DIALECT = AnthropicMessages()
REPLY = Reply(id="0123abcd", model="claude-x", created=1)
SIGNATURE = "YW55Y2xhdWRl"


def encoded(*parts: Part, reason: FinishReason = "stop", stop: str | None = None, **usage: int) -> dict[str, Any]:
    choice = Choice(parts=parts, finish_reason=reason, stop_sequence=stop)
    counts = Usage(**{"prompt_tokens": 10, "completion_tokens": 3, **usage})
    sent = DIALECT.encode(Completion(choices=(choice,), usage=counts), REPLY)
    ClientMessage.model_validate_json(sent)
    return json.loads(sent)


def test_a_message() -> None:
    assert encoded(Text("Paris.")) == {
        "id": "msg_0123abcd",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "Paris."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 3,
        },
    }


def test_blocks_come_in_the_order_of_the_parts() -> None:
    parts = (Text("a"), Reasoning("b"), ToolCall("toolu_1", "f", '{"x":1}'), ToolCall("toolu_2", "f", "{}"), Text("c"))
    assert encoded(*parts, reason="tool_calls")["content"] == [
        {"type": "text", "text": "a"},
        {"type": "thinking", "thinking": "b", "signature": SIGNATURE},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
        {"type": "text", "text": "c"},
    ]
    assert encoded()["content"] == []


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ('{"n": 123456789012345678901234567890, "s": "é\\n"}', {"n": 123456789012345678901234567890, "s": "é\n"}),
        (' {"a": {"b": []}}\n', {"a": {"b": []}}),
        ("", {}),
        ('{"cut": "of', {"INVALID_JSON": '{"cut": "of'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('{"a": NaN}', {"INVALID_JSON": '{"a": NaN}'}),
        ('{"a": "\n"}', {"INVALID_JSON": '{"a": "\n"}'}),
        ('{"a": 1} x', {"INVALID_JSON": '{"a": 1} x'}),
        ('{"a":' * 5000, {"INVALID_JSON": '{"a":' * 5000}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arguments_become_an_object(arguments: str, value: dict[str, Any]) -> None:
    (block,) = encoded(ToolCall("a", "f", arguments), reason="tool_calls")["content"]
    assert block["input"] == value


def test_arguments_keep_their_text() -> None:
    choice = Choice(parts=(ToolCall("a", "f", '{"x": 1.00, "y": 1e400}'),), finish_reason="tool_calls")
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    assert b'"input":{"x": 1.00, "y": 1e400}' in DIALECT.encode(Completion(choices=(choice,), usage=usage), REPLY)


@pytest.mark.parametrize(
    ("reason", "stop", "expected"),
    [
        ("stop", None, "end_turn"),
        ("stop", "END", "stop_sequence"),
        ("length", None, "max_tokens"),
        ("tool_calls", None, "tool_use"),
    ],
)
def test_stop_reasons(reason: FinishReason, stop: str | None, expected: str) -> None:
    message = encoded(Text("a"), reason=reason, stop=stop)
    assert (message["stop_reason"], message["stop_sequence"]) == (expected, stop)


@pytest.mark.parametrize(
    ("prompt", "cached", "stored", "expected"),
    [
        (10, 0, 0, (10, 0, 0)),
        (10, 6, 0, (4, 0, 6)),
        (10, 0, 6, (4, 6, 0)),
        (10, 4, 3, (3, 3, 4)),
        (10, 10, 0, (1, 0, 9)),
        (10, 4, 10, (1, 5, 4)),
        (10, 0, 64, (1, 9, 0)),
        (1, 1, 1, (1, 0, 0)),
        (0, 0, 0, (0, 0, 0)),
    ],
)
def test_every_prompt_token_counts_once(prompt: int, cached: int, stored: int, expected: tuple[int, ...]) -> None:
    usage = encoded(prompt_tokens=prompt, cached_tokens=cached, prefix_stored_tokens=stored)["usage"]
    fields = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert tuple(usage[field] for field in fields) == expected
    assert sum(expected) == prompt


def test_thinking_tokens_are_told() -> None:
    assert encoded(Reasoning("hm"), reasoning_tokens=2)["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


def test_the_first_choice_is_the_answer() -> None:
    choices = tuple(Choice(parts=(Text(text),), finish_reason="stop") for text in "ab")
    sent = DIALECT.encode(Completion(choices=choices, usage=Usage(prompt_tokens=1, completion_tokens=2)), REPLY)
    assert json.loads(sent)["content"] == [{"type": "text", "text": "a"}]


def test_a_count() -> None:
    assert DIALECT.encode_count(42) == b'{"input_tokens":42}'
    assert MessageTokensCount.model_validate_json(DIALECT.encode_count(42)).input_tokens == 42


ERRORS = [
    (errors.BadRequest("x"), 400, "invalid_request_error"),
    (errors.InvalidApiKey("x"), 401, "authentication_error"),
    (errors.HostRefused("x"), 403, "permission_error"),
    (errors.ModelNotFound("x"), 404, "not_found_error"),
    (errors.UnknownPath("x"), 404, "not_found_error"),
    (errors.MethodNotAllowed("x"), 405, "invalid_request_error"),
    (errors.BodyTimeout("x"), 408, "timeout_error"),
    (errors.BodyTooLarge("x"), 413, "request_too_large"),
    (errors.UnsupportedMediaType("x"), 415, "invalid_request_error"),
    (errors.InternalError("x"), 500, "api_error"),
    (errors.EngineFailed("x"), 500, "api_error"),
    (errors.Overloaded("x"), 529, "overloaded_error"),
    (errors.NotReady("x"), 503, "overloaded_error"),
    (errors.ShuttingDown("x"), 503, "overloaded_error"),
    (errors.GenerationTimeout("x"), 504, "timeout_error"),
    (errors.NotCached("x"), 504, "api_error"),
]


@pytest.mark.parametrize(("error", "status", "kind"), ERRORS, ids=[type(error).__name__ for error, *_ in ERRORS])
def test_errors(error: errors.ServiceError, status: int, kind: str) -> None:
    assert DIALECT.error_status(error) == status
    assert json.loads(DIALECT.encode_error(error, "req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "req_1",
    }


def test_a_prompt_too_long_is_told_in_the_words_that_clients_know() -> None:
    error = errors.ContextLengthExceeded(9000, 8192)
    told = json.loads(DIALECT.encode_error(error, "req_1"))["error"]
    assert told == {"type": "invalid_request_error", "message": "prompt is too long: 9000 tokens > 8192 maximum"}
    assert DIALECT.error_status(error) == 400
