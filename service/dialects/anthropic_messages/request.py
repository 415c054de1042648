"""Decodes a request for a message.

Unknown fields and those that change no answer (`metadata`, `cache_control`, `context_management`, `service_tier`,
betas, ...) are not read. Null means absent.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from service.dialects.anthropic_messages.messages import TextBlock, WireMessage, read_messages
from service.dialects.anthropic_messages.tools import AnyToolChoice, read_tool_choice
from service.dialects.base import ClientRequest
from service.dialects.json_body import MAX_MESSAGES, check_free_form, decode
from service.dialects.sampling import temperature_and_top_p
from service.generation import GenerationRequest, ResponseFormat, SamplingParams, Thinking, Tool

ToolReader = Callable[[bytes], tuple[Tool, ...]]

# The efforts that chat templates know. Others are not refused: newer clients may send them unasked.
_EFFORTS = ("low", "medium", "high", "xhigh", "max")

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
StopString = Annotated[str, msgspec.Meta(min_length=1)]


class ThinkingSwitch(msgspec.Struct, tag_field="type"):
    """`budget_tokens` is not read: a local model cannot be told how long to think."""


class ThinkingEnabled(ThinkingSwitch, tag="enabled"):
    pass


class ThinkingAdaptive(ThinkingSwitch, tag="adaptive"):
    pass


class ThinkingDisabled(ThinkingSwitch, tag="disabled"):
    pass


class OutputFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    format: OutputFormat | None = None
    effort: str | None = None


class CountRequest(msgspec.Struct, kw_only=True):
    """All fields that shape the prompt or the answer except `max_tokens`. `output_format` is the older name of
    `output_config.format`."""

    messages: Annotated[list[WireMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    model: str | None = None
    stream: bool | None = None

    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Count | None = None
    stop_sequences: Annotated[list[StopString], msgspec.Meta(max_length=64)] | None = None

    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: AnyToolChoice | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """`max_tokens` 0 reads the prompt into the prefix cache and generates nothing."""

    max_tokens: Count


_COUNT = msgspec.json.Decoder(CountRequest)
_MESSAGES = msgspec.json.Decoder(MessagesRequest)


def read_request(body: bytes, defaults: SamplingParams, read_tools: ToolReader) -> ClientRequest:
    """`read_tools` decodes the JSON text of `tools`. Raises `BadRequest` that names the field."""
    asked = decode(_MESSAGES, body)
    return _client_request(asked, asked.max_tokens, defaults, read_tools)


def read_count_request(body: bytes, defaults: SamplingParams, read_tools: ToolReader) -> ClientRequest:
    return _client_request(decode(_COUNT, body), None, defaults, read_tools)


def _client_request(
    asked: CountRequest, max_tokens: int | None, defaults: SamplingParams, read_tools: ToolReader
) -> ClientRequest:
    tools = read_tools(bytes(asked.tools))
    choice = asked.tool_choice
    request = GenerationRequest(
        messages=read_messages(asked.system, asked.messages),
        tools=tools,
        tool_choice=read_tool_choice(choice, tools),
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        response_format=_response_format(asked),
        sampling=_sampling(asked, defaults),
        max_tokens=max_tokens,
        stop=tuple(dict.fromkeys(asked.stop_sequences or ())),
        thinking=_thinking(asked.thinking),
        template_arguments=_template_arguments(asked.output_config),
    )
    return ClientRequest(request=request, model=asked.model, stream=bool(asked.stream), include_usage=True)


def _sampling(asked: CountRequest, defaults: SamplingParams) -> SamplingParams:
    temperature, top_p = temperature_and_top_p(asked.temperature, asked.top_p, defaults)
    top_k = defaults.top_k if asked.top_k is None else asked.top_k
    return msgspec.structs.replace(defaults, temperature=temperature, top_p=top_p, top_k=top_k)


def _thinking(switch: ThinkingSwitch | None) -> Thinking:
    """Adaptive thinking leaves the choice to the model, like no field at all."""
    match switch:
        case ThinkingEnabled():
            return "on"
        case ThinkingDisabled():
            return "off"
        case _:
            return "default"


def _response_format(asked: CountRequest) -> ResponseFormat | None:
    """Anthropic promises that the answer is valid under the schema."""
    if asked.output_config and asked.output_config.format:
        wanted, param = asked.output_config.format, "output_config.format.schema"
    elif asked.output_format:
        wanted, param = asked.output_format, "output_format.schema"
    else:
        return None
    check_free_form(wanted.schema, param)
    return ResponseFormat(kind="json_schema", schema=wanted.schema, strict=True)


def _template_arguments(config: OutputConfig | None) -> dict[str, Any]:
    if config is None or config.effort not in _EFFORTS:
        return {}
    return {"reasoning_effort": config.effort}
