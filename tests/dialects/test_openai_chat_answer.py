"""Completions and errors as the chat dialect writes them, read back with the official client's types."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from service.dialects.base import Reply
from service.dialects.openai_chat import OpenAIChat
from service.errors import (
    BadRequest,
    ContextLengthExceeded,
    InternalError,
    InvalidApiKey,
    MissingParameter,
    ModelNotFound,
    Overloaded,
    ServiceError,
)
from service.generation import (
    Choice,
    Completion,
    Part,
    Reasoning,
    SamplingParams,
    Text,
    TokenLogprob,
    ToolCall,
    TopLogprob,
    Usage,
)

REPLY = Reply(id="0a1b", model="m", created=1_700_000_000, fingerprint="0123456789abcdef")
USAGE = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=8, prefix_stored_tokens=2, reasoning_tokens=3)
BERN = ToolCall("call_1", "weather", '{"city": "Bern"}')
ROME = ToolCall("call_2", "weather", '{"city": "Rome"}')


def completion(*parts: Part, **fields: Any) -> Completion:
    return Completion(choices=(Choice(parts=parts, **{"finish_reason": "stop", **fields}),), usage=USAGE)


def encode(answer: Completion, style: str = "") -> dict[str, Any]:
    body = OpenAIChat().encode(answer, Reply(id="0a1b", model="m", created=1, dialect_state=style))
    ChatCompletion.model_validate_json(body, strict=True)
    return json.loads(body)


def test_the_whole_of_an_answer() -> None:
    assert json.loads(OpenAIChat().encode(completion(Text("Paris.")), REPLY)) == {
        "id": "chatcmpl-0a1b",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "system_fingerprint": "fp_0123456789ab",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def called(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


MESSAGES: list[tuple[tuple[Part, ...], dict[str, Any]]] = [
    ((), {"content": ""}),
    ((Text("a"), Reasoning("hm"), Text("b")), {"content": "ab", "reasoning_content": "hm"}),
    ((Reasoning("hm"),), {"content": "", "reasoning_content": "hm"}),
    ((BERN, ROME), {"content": None, "tool_calls": [called(BERN), called(ROME)]}),
    ((Text("I look."), BERN), {"content": "I look.", "tool_calls": [called(BERN)]}),
]


@pytest.mark.parametrize(("parts", "message"), MESSAGES)
def test_messages(parts: tuple[Part, ...], message: dict[str, Any]) -> None:
    [choice] = encode(completion(*parts))["choices"]
    assert choice["message"] == {"role": "assistant", "refusal": None, **message}


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls"])
def test_finish_reasons(reason: str) -> None:
    assert encode(completion(Text("x"), finish_reason=reason))["choices"][0]["finish_reason"] == reason


def test_the_deprecated_functions_style() -> None:
    body = b'{"messages": [{"role": "user", "content": ""}], "functions": [{"name": "weather"}]}'
    style = OpenAIChat().decode(body, SamplingParams()).dialect_state
    [choice] = encode(completion(BERN, finish_reason="tool_calls"), style)["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": {"name": "weather", "arguments": '{"city": "Bern"}'},
    }
    [two] = encode(completion(BERN, ROME, finish_reason="tool_calls"), style)["choices"]
    assert two["message"]["tool_calls"] == [called(ROME)]


def test_logprobs() -> None:
    euro = TokenLogprob("\ufffd", b"\xe2\x82", -0.5, (TopLogprob("a", b"a", float("-inf")), TopLogprob("", b"", -0.0)))
    answer = completion(Text("x"), logprobs=(euro, TokenLogprob("b", b"b", float("nan"))))
    assert encode(answer)["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "\ufffd",
                "bytes": [0xE2, 0x82],
                "logprob": -0.5,
                "top_logprobs": [
                    {"token": "a", "bytes": [97], "logprob": -9999.0},
                    {"token": "", "bytes": [], "logprob": 0.0},
                ],
            },
            {"token": "b", "bytes": [98], "logprob": -9999.0, "top_logprobs": []},
        ],
        "refusal": None,
    }


def test_several_choices_keep_their_order() -> None:
    answer = Completion(
        choices=tuple(Choice(parts=(Text(str(i)),), finish_reason="stop") for i in range(3)), usage=USAGE
    )
    assert [(c["index"], c["message"]["content"]) for c in encode(answer)["choices"]] == [(0, "0"), (1, "1"), (2, "2")]


ERRORS: list[tuple[ServiceError, int, str, str | None, str]] = [
    (BadRequest("m", param="n"), 400, "invalid_request_error", "n", "invalid_value"),
    (MissingParameter("n"), 400, "invalid_request_error", "n", "missing_required_parameter"),
    (ContextLengthExceeded(9, 8), 400, "invalid_request_error", "messages", "context_length_exceeded"),
    (InvalidApiKey("m"), 401, "invalid_request_error", None, "invalid_api_key"),
    (ModelNotFound("m", param="model"), 404, "invalid_request_error", "model", "model_not_found"),
    (InternalError("m"), 500, "server_error", None, "internal_error"),
    (Overloaded("m"), 503, "server_error", None, "overloaded"),
]


@pytest.mark.parametrize(("error", "status", "kind", "param", "code"), ERRORS)
def test_errors(error: ServiceError, status: int, kind: str, param: str | None, code: str) -> None:
    dialect = OpenAIChat()
    assert dialect.error_status(error) == status
    assert json.loads(dialect.encode_error(error, "r1")) == {
        "error": {"message": error.message, "type": kind, "param": param, "code": code}
    }
