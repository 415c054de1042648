from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from service.dialects.base import Reply
from service.dialects.openai_logprobs import LogprobOfToken, logprobs_of_tokens
from service.dialects.openai_responses.items import seal
from service.dialects.openai_responses.request import Asked
from service.dialects.openai_responses.tools import INPUT, WireName
from service.errors import ServiceError
from service.generation import Choice, Completion, Part, Reasoning, Text, ToolCall, Usage, WebSearch

Status = Literal["in_progress", "completed", "incomplete", "failed"]
NULL = msgspec.Raw(b"null")


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", kw_only=True):
    text: str
    annotations: list[str] = []
    logprobs: list[LogprobOfToken] = []


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class OutputItem(msgspec.Struct, tag_field="type", kw_only=True):
    id: str
    status: Status = "in_progress"


class OutputMessage(OutputItem, tag="message", kw_only=True):
    role: str = "assistant"
    content: list[OutputText] = []


class OutputReasoning(OutputItem, tag="reasoning", kw_only=True):
    summary: list[SummaryText] = []
    content: list[ReasoningText] | UnsetType = UNSET
    encrypted_content: str | UnsetType = UNSET


class FunctionCall(OutputItem, tag="function_call", kw_only=True):
    call_id: str
    name: str
    arguments: str = ""
    namespace: str | UnsetType = UNSET


class CustomCall(OutputItem, tag="custom_tool_call", kw_only=True):
    call_id: str
    name: str
    input: str = ""
    namespace: str | UnsetType = UNSET


class ToolSearchCall(OutputItem, tag="tool_search_call", kw_only=True):
    call_id: str
    execution: str = "client"
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class SearchSource(msgspec.Struct, tag_field="type", tag="url"):
    url: str


class SearchAction(msgspec.Struct, tag_field="type", tag="search"):
    query: str
    queries: list[str]
    sources: list[SearchSource]


class ShownPage(msgspec.Struct):
    url: str
    title: str
    snippet: str


class WebSearchCall(OutputItem, tag="web_search_call", kw_only=True):
    """`results` are ours. Clients return them with the item, so the model sees them in later turns."""

    action: SearchAction
    results: list[ShownPage] = []


AnyCall = FunctionCall | CustomCall | ToolSearchCall
# The items that a stream opens and closes with events in between.
OpenItem = OutputMessage | OutputReasoning | FunctionCall | CustomCall | ToolSearchCall
AnyItem = OpenItem | WebSearchCall


class InputTokensDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct):
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(msgspec.Struct):
    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    reason: str


class ShownReasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class Response(msgspec.Struct, kw_only=True):
    id: str
    object: str = "response"
    created_at: int
    status: Status
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: Sequence[AnyItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: ShownReasoning
    store: bool
    temperature: float
    text: msgspec.Raw
    tool_choice: msgspec.Raw
    tools: msgspec.Raw
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None = None
    user: msgspec.Raw
    metadata: msgspec.Raw


_ENCODER = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class CustomInput(msgspec.Struct):
    input: str


class SearchInput(msgspec.Struct):
    query: str


def encode_response(completion: Completion, reply: Reply) -> bytes:
    """Encodes the first choice; OpenAI's protocol has only one."""
    choice = completion.choices[0]
    items = [output_item(part, i, choice, reply) for i, part in enumerate(choice.parts)]
    if choice.logprobs is not None:
        first = next((item for item in items if isinstance(item, OutputMessage)), None)
        if first is not None:
            first.content[0].logprobs = logprobs_of_tokens(choice.logprobs)
    cut = choice.finish_reason == "length"
    if cut and items:
        items[-1].status = "incomplete"
    return _ENCODER.encode(response(reply, items, "incomplete" if cut else "completed", completion.usage))


def response(
    reply: Reply,
    items: Sequence[AnyItem],
    status: Status,
    usage: Usage | None = None,
    error: ServiceError | None = None,
) -> Response:
    asked = asked_of(reply)
    body = asked.body
    reasoning = body.reasoning
    return Response(
        id=response_id(reply),
        created_at=reply.created,
        status=status,
        error=None if error is None else ResponseError(_error_code(error), error.message),
        incomplete_details=IncompleteDetails("max_output_tokens") if status == "incomplete" else None,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        model=reply.model,
        output=items,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        reasoning=ShownReasoning(reasoning.effort, reasoning.summary) if reasoning else ShownReasoning(),
        store=asked.is_kept,
        temperature=asked.sampling.temperature,
        text=msgspec.Raw(_ENCODER.encode(body.text or {"format": {"type": "text"}})),
        tool_choice=msgspec.Raw(_ENCODER.encode(body.tool_choice or "auto")),
        tools=body.tools if bytes(body.tools) != b"null" else msgspec.Raw(b"[]"),
        top_logprobs=body.top_logprobs or 0,
        top_p=asked.sampling.top_p,
        truncation=body.truncation or "disabled",
        usage=None if usage is None else response_usage(usage),
        user=body.user if bytes(body.user) else NULL,
        metadata=body.metadata if bytes(body.metadata) not in (b"", b"null") else msgspec.Raw(b"{}"),
    )


def response_usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputTokensDetails(usage.cached_tokens, usage.prefix_stored_tokens),
        usage.completion_tokens,
        OutputTokensDetails(usage.reasoning_tokens),
        usage.prompt_tokens + usage.completion_tokens,
    )


def encode_count(tokens: int) -> bytes:
    return _ENCODER.encode({"object": "response.input_tokens", "input_tokens": tokens})


def asked_of(reply: Reply) -> Asked:
    assert isinstance(reply.dialect_state, Asked)  # noqa: S101  (this dialect put it there)
    return reply.dialect_state


def response_id(reply: Reply) -> str:
    return f"resp_{reply.id}"


def item_id(prefix: str, index: int, reply: Reply) -> str:
    return f"{prefix}_{reply.id}{index:02d}"


def output_item(part: Part, index: int, choice: Choice, reply: Reply) -> AnyItem:
    match part:
        case Text(text):
            return OutputMessage(id=item_id("msg", index, reply), status="completed", content=[OutputText(text=text)])
        case Reasoning(text):
            return finished_reasoning(item_id("rs", index, reply), text, asked_of(reply))
        case WebSearch():
            return web_search_call(part, item_id("ws", index, reply))
        case ToolCall(call_id, name, arguments):
            return finished_call(opened_call(call_id, name, index, reply), arguments)


def finished_reasoning(identity: str, text: str, asked: Asked) -> OutputReasoning:
    """A local model's reasoning is its own summary."""
    item = OutputReasoning(id=identity, status="completed")
    if asked.has_summaries:
        item.summary = [SummaryText(text)]
    else:
        item.content = [ReasoningText(text)]
    if asked.has_encrypted_reasoning:
        item.encrypted_content = seal(text)
    return item


def opened_call(call_id: str, name: str, index: int, reply: Reply) -> AnyCall:
    wire = asked_of(reply).names.get(name) or WireName("function", name)
    namespace = wire.namespace or UNSET
    match wire.kind:
        case "function":
            identity = item_id("fc", index, reply)
            return FunctionCall(id=identity, call_id=call_id, name=wire.name, namespace=namespace)
        case "custom":
            identity = item_id("ctc", index, reply)
            return CustomCall(id=identity, call_id=call_id, name=wire.name, namespace=namespace)
        case "tool_search":
            return ToolSearchCall(id=item_id("tsc", index, reply), call_id=call_id)


def finished_call(call: AnyCall, arguments: str) -> AnyCall:
    call.status = "completed"
    match call:
        case FunctionCall():
            call.arguments = arguments
        case CustomCall():
            call.input = custom_input(arguments)
        case ToolSearchCall():
            call.arguments = _object(arguments)
    return call


def custom_input(arguments: str) -> str:
    """Returns the text of the one argument. Arguments in another form are unchanged."""
    try:
        return msgspec.json.decode(arguments, type=CustomInput).input
    except (msgspec.DecodeError, RecursionError):
        return arguments


def web_search_call(search: WebSearch, identity: str) -> WebSearchCall:
    try:
        query = msgspec.json.decode(search.arguments, type=SearchInput).query
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        query = search.arguments
    return WebSearchCall(
        id=identity,
        status="completed" if search.error is None else "failed",
        action=SearchAction(query, [query], [SearchSource(page.url) for page in search.results]),
        results=[ShownPage(page.url, page.title, page.snippet) for page in search.results],
    )


def _object(arguments: str) -> msgspec.Raw:
    try:
        _OBJECT.decode(arguments)
        return msgspec.Raw(msgspec.json.format(arguments, indent=-1))
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(_ENCODER.encode({INPUT: arguments}))


def _error_code(error: ServiceError) -> str:
    """Clients repeat a request that failed with `server_error`."""
    return "server_error" if error.status >= 500 else "invalid_prompt"
