"""Decodes a chat completion request.

Unknown fields and those that change no answer (`user`, `metadata`, `store`, `service_tier`, `prediction`, ...) are not
read. Null means absent, as the official clients send it.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from service.dialects.base import ClientRequest
from service.dialects.json_body import MAX_MESSAGES, check_free_form, choose, decode, show
from service.dialects.openai_chat.messages import ChatMessage, read_messages
from service.dialects.openai_chat.tools import (
    FunctionDefinition,
    FunctionReference,
    ToolChoiceObject,
    read_function_call,
    read_functions,
    read_tool_choice,
)
from service.dialects.sampling import temperature_and_top_p
from service.errors import BadRequest, MissingParameter, UnsupportedValue
from service.generation import GenerationRequest, ResponseFormat, SamplingParams, Thinking, Tool, ToolChoice

# The `style` of a request with the deprecated `functions`: a call is answered as `function_call`.
FUNCTIONS_STYLE = "functions"

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
# It divides logits; values nearer to 0 overflow them.
RepetitionPenalty = Annotated[float, msgspec.Meta(ge=0.01, le=100)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
TopK = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
# OpenAI requires at least 1. 0 reads the prompt into the prefix cache and generates nothing.
TokenCount = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
StopString = Annotated[str, msgspec.Meta(min_length=1)]

_EFFORTS = {effort: effort for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")}
_THINKING: dict[str, Thinking] = {"enabled": "on", "disabled": "off", "adaptive": "default"}
_FORMATS: dict[str, Literal["text", "json_object", "json_schema"]] = {
    "text": "text",
    "json_object": "json_object",
    "json_schema": "json_schema",
}
# The prompt has fields of its own, and a template from a client would run on this server.
_RESERVED_TEMPLATE_ARGUMENTS = frozenset(
    {"messages", "conversation", "tools", "documents", "chat_template", "tokenize", "add_generation_prompt"}
)

MAX_BIASES = 10_000


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class JsonSchema(msgspec.Struct):
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormatObject(msgspec.Struct):
    type: str
    json_schema: JsonSchema | None = None


class ThinkingObject(msgspec.Struct):
    type: str


class ChatRequest(msgspec.Struct):
    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    min_p: Probability | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], msgspec.Meta(max_length=MAX_BIASES)] | None = None
    seed: Seed | None = None

    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    stop: StopString | Annotated[list[StopString], msgspec.Meta(max_length=16)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=8)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormatObject | None = None

    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: str | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: str | FunctionReference | None = None

    reasoning_effort: str | None = None
    thinking: ThinkingObject | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None


class _Calling(msgspec.Struct):
    tools: tuple[Tool, ...]
    choice: ToolChoice
    parallel: bool
    style: str = ""


_REQUEST = msgspec.json.Decoder(ChatRequest)


def read_request(
    body: bytes, defaults: SamplingParams, read_tools: Callable[[bytes], tuple[Tool, ...]]
) -> ClientRequest:
    """`read_tools` decodes the JSON text of `tools`. Raises `BadRequest` that names the field."""
    asked = decode(_REQUEST, body)
    if asked.audio is not None or "audio" in (asked.modalities or ()):
        param = "modalities" if asked.modalities else "audio"
        raise UnsupportedValue(f"Invalid '{param}': this model answers in text only.", param=param)
    calling = _calling(asked, read_tools)
    max_tokens = asked.max_completion_tokens
    request = GenerationRequest(
        messages=read_messages(asked.messages),
        tools=calling.tools,
        tool_choice=calling.choice,
        parallel_tool_calls=calling.parallel,
        response_format=_response_format(asked.response_format),
        sampling=_sampling(asked, defaults),
        max_tokens=asked.max_tokens if max_tokens is None else max_tokens,
        stop=_stop(asked.stop),
        n=1 if asked.n is None else asked.n,
        logprobs=_logprobs(asked),
        thinking=_thinking(asked),
        template_arguments=_template_arguments(asked),
    )
    return ClientRequest(
        request=request,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        style=calling.style,
    )


def _calling(asked: ChatRequest, read_tools: Callable[[bytes], tuple[Tool, ...]]) -> _Calling:
    tools = read_tools(bytes(asked.tools))
    if asked.functions:
        if tools:
            raise BadRequest(
                "Invalid 'functions': expected 'tools' or the deprecated 'functions', found both.", param="functions"
            )
        functions = read_functions(asked.functions)
        choice = read_function_call(asked.function_call, functions)
        return _Calling(functions, choice, parallel=False, style=FUNCTIONS_STYLE)
    choice, tools = read_tool_choice(asked.tool_choice, tools)
    return _Calling(tools, choice, parallel=asked.parallel_tool_calls is not False or not tools)


def _sampling(asked: ChatRequest, defaults: SamplingParams) -> SamplingParams:
    temperature, top_p = temperature_and_top_p(asked.temperature, asked.top_p, defaults)
    return SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=defaults.top_k if asked.top_k is None else max(asked.top_k, 0),
        min_p=defaults.min_p if asked.min_p is None else asked.min_p,
        repetition_penalty=(
            defaults.repetition_penalty if asked.repetition_penalty is None else asked.repetition_penalty
        ),
        presence_penalty=defaults.presence_penalty if asked.presence_penalty is None else asked.presence_penalty,
        frequency_penalty=defaults.frequency_penalty if asked.frequency_penalty is None else asked.frequency_penalty,
        logit_bias=defaults.logit_bias if asked.logit_bias is None else _logit_bias(asked.logit_bias),
        seed=defaults.seed if asked.seed is None else asked.seed,
    )


def _logit_bias(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    by_token: dict[int, float] = {}
    for key, bias in biases.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise BadRequest(
                f"Invalid 'logit_bias': expected token ids as keys, found {show(key)}.", param="logit_bias"
            )
        by_token[int(key)] = bias
    return tuple(sorted(by_token.items()))


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if isinstance(stop, str):
        return (stop,)
    return tuple(dict.fromkeys(stop or ()))


def _logprobs(asked: ChatRequest) -> int | None:
    if asked.logprobs:
        return asked.top_logprobs or 0
    if asked.top_logprobs:
        raise BadRequest("Invalid 'top_logprobs': expected 'logprobs' to be true beside it.", param="top_logprobs")
    return None


def _response_format(wanted: ResponseFormatObject | None) -> ResponseFormat | None:
    if wanted is None:
        return None
    kind = choose(wanted.type, _FORMATS, "response_format.type")
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat(kind=kind)
    given = wanted.json_schema
    if given is None or given.schema is None:
        missing = "response_format.json_schema" + (".schema" if given else "")
        raise MissingParameter(f"Missing required parameter: '{missing}'.", param=missing)
    check_free_form(given.schema, "response_format.json_schema.schema")
    return ResponseFormat(kind=kind, schema=given.schema, name=given.name or "", strict=bool(given.strict))


def _thinking(asked: ChatRequest) -> Thinking:
    if asked.thinking is not None:
        return choose(asked.thinking.type, _THINKING, "thinking.type")
    return "off" if asked.reasoning_effort == "none" else "default"


def _template_arguments(asked: ChatRequest) -> dict[str, Any]:
    """`thinking` expresses "none"."""
    arguments = asked.chat_template_kwargs or {}
    check_free_form(arguments, "chat_template_kwargs")
    for reserved in _RESERVED_TEMPLATE_ARGUMENTS & arguments.keys():
        param = f"chat_template_kwargs.{reserved}"
        raise BadRequest(f"Invalid '{param}': a request may not set this.", param=param)
    if asked.reasoning_effort is None:
        return arguments
    effort = choose(asked.reasoning_effort, _EFFORTS, "reasoning_effort")
    return arguments if effort == "none" else {"reasoning_effort": effort, **arguments}
