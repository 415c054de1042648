from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from service.dialects.base import Reply
from service.errors import (
    BodyTimeout,
    ContextLengthExceeded,
    GenerationTimeout,
    NotReady,
    Overloaded,
    ServiceError,
    ShuttingDown,
    ThreadUnsupported,
)
from service.generation import Completion, FinishReason, Part, Reasoning, Text, ToolCall, Usage, WebSearch

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]

# Anthropic signs reasoning, and clients send the signature back unread. This is "anyclaude" in base64.
SIGNATURE = "YW55Y2xhdWRl"
NO_INPUT = msgspec.Raw(b"{}")

_STOP_REASONS: dict[FinishReason, StopReason] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
_TIMEOUTS = (BodyTimeout, GenerationTimeout)
# Clients that read this wait and try again.
_OVERLOADS = (Overloaded, NotReady, ShuttingDown)

_ENCODER = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class WireBlock(msgspec.Struct, tag_field="type", frozen=True): ...


class WireText(WireBlock, tag="text", frozen=True):
    text: str


class WireThinking(WireBlock, tag="thinking", frozen=True):
    thinking: str
    signature: str


class WireToolUse(WireBlock, tag="tool_use", frozen=True):
    id: str
    name: str
    input: msgspec.Raw


class WireServerToolUse(WireToolUse, tag="server_tool_use", frozen=True): ...


class WireSearchResult(msgspec.Struct, tag_field="type", tag="web_search_result", frozen=True):
    """`encrypted_content` is plain text here: Anthropic's protocol has no other field for it."""

    url: str
    title: str
    encrypted_content: str
    page_age: str | None


class WireSearchError(msgspec.Struct, tag_field="type", tag="web_search_tool_result_error", frozen=True):
    error_code: str


class WireSearch(WireBlock, tag="web_search_tool_result", frozen=True):
    tool_use_id: str
    content: list[WireSearchResult] | WireSearchError


AnyWireBlock = WireText | WireThinking | WireToolUse | WireServerToolUse | WireSearch


class ServerToolUse(msgspec.Struct):
    web_search_requests: int


class OutputTokensDetails(msgspec.Struct):
    thinking_tokens: int


class WireUsage(msgspec.Struct):
    """Every token of the prompt counts in exactly one of the first three fields."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails | UnsetType = UNSET
    server_tool_use: ServerToolUse | UnsetType = UNSET


class WireMessage(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    id: str
    role: str = "assistant"
    model: str
    content: list[AnyWireBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: WireUsage


class ErrorDetails(msgspec.Struct):
    error_code: str


class WireError(msgspec.Struct):
    type: str
    message: str
    details: ErrorDetails | UnsetType = UNSET


class WireErrorBody(msgspec.Struct, tag_field="type", tag="error"):
    error: WireError
    request_id: str | UnsetType = UNSET


class WireCount(msgspec.Struct):
    input_tokens: int


class UnparsedInput(msgspec.Struct):
    """Arguments that are no JSON object, in Anthropic's documented form."""

    INVALID_JSON: str


def encode_message(completion: Completion, reply: Reply) -> bytes:
    """Encodes the first choice; Anthropic's protocol has only one."""
    choice = completion.choices[0]
    message = WireMessage(
        id=message_id(reply),
        model=reply.model,
        content=[block for part in choice.parts for block in _blocks(part)],
        stop_reason=stop_reason(choice.finish_reason, choice.stop_sequence),
        stop_sequence=choice.stop_sequence,
        usage=wire_usage(completion.usage, sum(map(is_answered_search, choice.parts))),
    )
    return _ENCODER.encode(message)


def encode_count(tokens: int) -> bytes:
    return _ENCODER.encode(WireCount(tokens))


def encode_error(error: ServiceError, request_id: str) -> bytes:
    return _ENCODER.encode(WireErrorBody(wire_error(error), request_id))


def error_status(error: ServiceError) -> int:
    return 529 if isinstance(error, Overloaded) else error.status


def wire_error(error: ServiceError) -> WireError:
    message = error.message
    if isinstance(error, ContextLengthExceeded):
        # Claude Code searches for these words and shortens the conversation by these numbers.
        message = f"prompt is too long: {error.prompt_tokens} tokens > {error.context_length} maximum"
    details = ErrorDetails(error.code) if isinstance(error, ThreadUnsupported) else UNSET
    return WireError(_error_type(error), message, details)


def message_id(reply: Reply) -> str:
    return f"msg_{reply.id}"


def stop_reason(reason: FinishReason, stop_sequence: str | None) -> StopReason:
    return "stop_sequence" if reason == "stop" and stop_sequence is not None else _STOP_REASONS[reason]


def is_answered_search(part: Part) -> bool:
    return isinstance(part, WebSearch) and part.error is None


def wire_usage(usage: Usage, searches: int = 0) -> WireUsage:
    # At least one token of the prompt counts as new, because it is read again. Claude Code takes 0 for "unknown" and
    # would count a fully cached prompt twice.
    reusable = max(0, usage.prompt_tokens - 1)
    read = min(usage.cached_tokens, reusable)
    created = min(usage.prefix_stored_tokens, reusable - read)
    return WireUsage(
        input_tokens=usage.prompt_tokens - read - created,
        cache_creation_input_tokens=created,
        cache_read_input_tokens=read,
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(usage.reasoning_tokens) if usage.reasoning_tokens else UNSET,
        server_tool_use=ServerToolUse(searches) if searches else UNSET,
    )


def search_call(search: WebSearch, given: msgspec.Raw) -> WireServerToolUse:
    return WireServerToolUse(_search_id(search), search.name, given)


def search_results(search: WebSearch) -> WireSearch:
    if search.error is not None:
        return WireSearch(_search_id(search), WireSearchError(search.error))
    results = [WireSearchResult(r.url, r.title, r.snippet, r.published) for r in search.results]
    return WireSearch(_search_id(search), results)


def _search_id(search: WebSearch) -> str:
    return f"srvtoolu_{search.id}"


def _blocks(part: Part) -> tuple[AnyWireBlock, ...]:
    match part:
        case Text(text):
            return (WireText(text),)
        case Reasoning(text):
            return (WireThinking(text, SIGNATURE),)
        case WebSearch():
            return search_call(part, _input(part.arguments)), search_results(part)
        case ToolCall(call_id, name, arguments):
            return (WireToolUse(call_id, name, _input(arguments)),)


def _input(arguments: str) -> msgspec.Raw:
    if not arguments:
        return NO_INPUT
    try:
        _OBJECT.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(_ENCODER.encode(UnparsedInput(arguments)))
    return msgspec.Raw(arguments)


def _error_type(error: ServiceError) -> str:
    if isinstance(error, _OVERLOADS):
        return "overloaded_error"
    if isinstance(error, _TIMEOUTS):
        return "timeout_error"
    return _ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
