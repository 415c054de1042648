from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from service.dialects.base import Reply
from service.dialects.openai_chat.request import FUNCTIONS_STYLE
from service.dialects.openai_dialect import system_fingerprint
from service.dialects.openai_logprobs import LogprobOfToken, logprobs_of_tokens
from service.generation import Choice, Completion, FinishReason, Text, TokenLogprob, ToolCall, Usage

WireFinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class WireFunction(msgspec.Struct):
    name: str
    arguments: str


class WireToolCall(msgspec.Struct, kw_only=True):
    id: str
    type: str = "function"
    function: WireFunction


class WireMessage(msgspec.Struct, kw_only=True):
    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[WireToolCall] | UnsetType = UNSET
    function_call: WireFunction | UnsetType = UNSET


class WireLogprobs(msgspec.Struct):
    content: list[LogprobOfToken]
    refusal: None = None


class WireChoice(msgspec.Struct):
    index: int
    message: WireMessage
    logprobs: WireLogprobs | None
    finish_reason: WireFinishReason


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    reasoning_tokens: int


class WireUsage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class WireCompletion(msgspec.Struct, kw_only=True):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[WireChoice]
    usage: WireUsage
    system_fingerprint: str | None


_ENCODER = msgspec.json.Encoder()


def encode_completion(completion: Completion, reply: Reply) -> bytes:
    return _ENCODER.encode(
        WireCompletion(
            id=response_id(reply),
            created=reply.created,
            model=reply.model,
            choices=[_choice(i, choice, reply.dialect_state) for i, choice in enumerate(completion.choices)],
            usage=wire_usage(completion.usage),
            system_fingerprint=system_fingerprint(reply),
        )
    )


def response_id(reply: Reply) -> str:
    return f"chatcmpl-{reply.id}"


def wire_usage(usage: Usage) -> WireUsage:
    return WireUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        PromptTokensDetails(usage.cached_tokens),
        CompletionTokensDetails(usage.reasoning_tokens),
    )


def wire_logprobs(logprobs: tuple[TokenLogprob, ...]) -> WireLogprobs:
    return WireLogprobs(logprobs_of_tokens(logprobs))


def wire_finish_reason(reason: FinishReason, style: object) -> WireFinishReason:
    return "function_call" if reason == "tool_calls" and style == FUNCTIONS_STYLE else reason


def _choice(index: int, choice: Choice, style: object) -> WireChoice:
    logprobs = None if choice.logprobs is None else wire_logprobs(choice.logprobs)
    return WireChoice(index, _message(choice, style), logprobs, wire_finish_reason(choice.finish_reason, style))


def _message(choice: Choice, style: object) -> WireMessage:
    """`content` is null only with calls. The deprecated style holds one call; others are sent as `tool_calls`."""
    calls = choice.tool_calls
    spoken = not calls or any(isinstance(part, Text) for part in choice.parts)
    message = WireMessage(content=choice.text if spoken else None)
    if reasoning := choice.reasoning:
        message.reasoning_content = reasoning
    if calls and style == FUNCTIONS_STYLE:
        message.function_call = WireFunction(calls[0].name, calls[0].arguments)
        calls = calls[1:]
    if calls:
        message.tool_calls = [_tool_call(call) for call in calls]
    return message


def _tool_call(call: ToolCall) -> WireToolCall:
    return WireToolCall(id=call.id, function=WireFunction(call.name, call.arguments))
