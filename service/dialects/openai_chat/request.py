"""Decodes a chat completion request. Null means absent, as the official clients send it."""

from typing import Annotated, Any

import msgspec

from service.dialects.answer_form import FormFields, read_form
from service.dialects.base import ClientRequest
from service.dialects.body_fields import UNREAD, FieldReader, Unread, join_fields
from service.dialects.json_body import MAX_MESSAGES, check_free_form, choose
from service.dialects.openai_chat.messages import ChatMessage, read_messages, unread_media
from service.dialects.openai_chat.tools import (
    FunctionDefinition,
    FunctionReference,
    ToolChoiceObject,
    read_function_call,
    read_functions,
    read_tool_choice,
)
from service.dialects.openai_dialect import EFFORTS, StreamOptions
from service.dialects.openai_sampling import Stop, read_sampling, read_stop
from service.dialects.sampling import TokenCount
from service.dialects.tool_definitions import ReadTools, ToolReader
from service.errors import BadRequest, UnsupportedValue
from service.generation import GenerationRequest, SamplingParams, Thinking, Tool, ToolChoice

# The `dialect_state` of a request with the deprecated `functions`: a call is answered as `function_call`.
FUNCTIONS_STYLE = "functions"

_THINKING: dict[str, Thinking] = {"enabled": "on", "disabled": "off", "adaptive": "default"}
# The prompt has fields of its own, and a client's template would run on this server.
_RESERVED_TEMPLATE_ARGUMENTS = frozenset(
    {"messages", "conversation", "tools", "documents", "chat_template", "tokenize", "add_generation_prompt"}
)


class ThinkingObject(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    budget_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


class ChatRequest(FormFields, kw_only=True, forbid_unknown_fields=True):
    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    stop: Stop | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=8)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None

    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: str | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: str | FunctionReference | None = None

    reasoning_effort: str | None = None
    thinking: ThinkingObject | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    modalities: list[str] | None = None
    audio: Any = None
    store: bool | None = None
    previous_response_id: str | None = None
    web_search_options: Any = None

    user: Unread = UNREAD
    metadata: Unread = UNREAD
    moderation: Unread = UNREAD
    prediction: Unread = UNREAD
    prompt_cache_key: Unread = UNREAD
    prompt_cache_options: Unread = UNREAD
    prompt_cache_retention: Unread = UNREAD
    safety_identifier: Unread = UNREAD
    service_tier: Unread = UNREAD
    verbosity: Unread = UNREAD


class _Calling(msgspec.Struct):
    tools: tuple[Tool, ...]
    choice: ToolChoice
    parallel: bool
    style: str = ""


# The model decides how long answers are, and no chat template here knows this field.
_BODY = FieldReader(ChatRequest, keyed=("verbosity",))


def read_request(body: bytes, defaults: SamplingParams, read_tools: ToolReader[ReadTools]) -> ClientRequest:
    asked, others = _BODY.read(body)
    _refuse(asked)
    read = read_tools(bytes(asked.tools))
    if read.others.keyed:
        others = join_fields(others, read.others)
    calling = _calling(asked, read.tools)
    max_tokens = asked.max_completion_tokens
    request = GenerationRequest(
        messages=read_messages(asked.messages),
        tools=calling.tools,
        tool_choice=calling.choice,
        parallel_tool_calls=calling.parallel,
        response_format=read_form(asked),
        sampling=read_sampling(asked, defaults),
        max_tokens=asked.max_tokens if max_tokens is None else max_tokens,
        stop=read_stop(asked.stop),
        n=1 if asked.n is None else asked.n,
        logprobs=_logprobs(asked),
        thinking=_thinking(asked),
        thinking_budget=asked.thinking.budget_tokens if asked.thinking else None,
        template_arguments=_template_arguments(asked),
        unread_fields=others.keyed,
    )
    return ClientRequest(
        request=request,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        dialect_state=calling.style,
        unknown_fields=others.unknown,
        unread_media=unread_media(asked.messages),
    )


def _refuse(asked: ChatRequest) -> None:
    other = [kind for kind in asked.modalities or () if kind != "text"]
    if other or asked.audio is not None:
        param = "modalities" if other else "audio"
        raise UnsupportedValue.at(param, "this model answers in text only.")
    if asked.store:
        raise UnsupportedValue.at(
            "store", "chat completions are not kept here. Leave it out, or use POST /v1/responses."
        )
    if asked.previous_response_id is not None:
        raise UnsupportedValue.at(
            "previous_response_id", "POST /v1/responses has it. Here, send the whole conversation."
        )
    if asked.web_search_options is not None:
        raise UnsupportedValue.at("web_search_options", "this server does not search the web. Leave it out.")


def _calling(asked: ChatRequest, tools: tuple[Tool, ...]) -> _Calling:
    if asked.functions:
        if tools:
            raise BadRequest.at("functions", "expected 'tools' or the deprecated 'functions', found both.")
        functions = read_functions(asked.functions)
        choice = read_function_call(asked.function_call, functions)
        return _Calling(functions, choice, parallel=False, style=FUNCTIONS_STYLE)
    choice, tools = read_tool_choice(asked.tool_choice, tools)
    return _Calling(tools, choice, parallel=asked.parallel_tool_calls is not False or not tools)


def _logprobs(asked: ChatRequest) -> int | None:
    if asked.logprobs:
        return asked.top_logprobs or 0
    if asked.top_logprobs:
        raise BadRequest.at("top_logprobs", "expected 'logprobs' to be true beside it.")
    return None


def _thinking(asked: ChatRequest) -> Thinking:
    if asked.thinking is not None:
        return choose(asked.thinking.type, _THINKING, "thinking.type")
    return "off" if asked.reasoning_effort == "none" else "default"


def _template_arguments(asked: ChatRequest) -> dict[str, Any]:
    arguments = asked.chat_template_kwargs or {}
    if arguments:
        check_free_form(arguments, "chat_template_kwargs")
    for reserved in _RESERVED_TEMPLATE_ARGUMENTS & arguments.keys():
        param = f"chat_template_kwargs.{reserved}"
        raise BadRequest.at(param, "a request may not set this.")
    if asked.reasoning_effort is None:
        return arguments
    effort = choose(asked.reasoning_effort, EFFORTS, "reasoning_effort")
    return arguments if effort == "none" else {"reasoning_effort": effort, **arguments}
