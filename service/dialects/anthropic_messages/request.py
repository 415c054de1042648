"""Decodes a request for a message. Null means absent."""

from typing import Annotated, Any

import msgspec

from service.dialects.anthropic_messages.blocks import TextBlock
from service.dialects.anthropic_messages.messages import SentMessage, read_messages, unread_media
from service.dialects.anthropic_messages.tools import AnyToolChoice, read_tool_choice
from service.dialects.base import ClientRequest
from service.dialects.body_fields import UNREAD, FieldReader, OtherFields, Unread, join_fields
from service.dialects.json_body import MAX_MESSAGES, check_free_form, join_texts
from service.dialects.sampling import Probability, StopString, TokenCount, temperature_and_top_p
from service.dialects.tool_definitions import ReadTools, ToolReader
from service.errors import ThreadUnsupported, UnsupportedValue
from service.generation import GenerationRequest, ResponseFormat, SamplingParams, Thinking

# The efforts that chat templates know. Others are accepted, because newer clients may send them unasked.
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class ThinkingSwitch(msgspec.Struct, tag_field="type", kw_only=True, forbid_unknown_fields=True):
    block_binding: Unread = UNREAD
    display: Unread = UNREAD


class ThinkingEnabled(ThinkingSwitch, tag="enabled"):
    budget_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


class ThinkingAdaptive(ThinkingSwitch, tag="adaptive"): ...


class ThinkingDisabled(ThinkingSwitch, tag="disabled"): ...


class ThinkingBetweenTools(ThinkingSwitch, tag="between_tools"):
    """Off, but for short notes between tool calls."""


class OutputFormat(msgspec.Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    format: OutputFormat | None = None
    effort: str | None = None


class CountRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All fields that shape the prompt or the answer except `max_tokens`. `output_format` is the older name of
    `output_config.format`."""

    messages: Annotated[list[SentMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    model: str | None = None
    stream: bool | None = None

    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: Annotated[list[StopString], msgspec.Meta(max_length=64)] | None = None

    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: AnyToolChoice | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | ThinkingBetweenTools | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None

    thread: Any = None
    container: Any = None
    mcp_servers: list[Any] | None = None

    context_management: Unread = UNREAD
    compaction: Unread = UNREAD

    anthropic_version: Unread = UNREAD
    betas: Unread = UNREAD
    billing_policy: Unread = UNREAD
    cache_control: Unread = UNREAD
    diagnostics: Unread = UNREAD
    fallback_credit_token: Unread = UNREAD
    fallbacks: Unread = UNREAD
    inference_geo: Unread = UNREAD
    metadata: Unread = UNREAD
    safeguards: Unread = UNREAD
    service_tier: Unread = UNREAD
    speed: Unread = UNREAD
    user_profile_id: Unread = UNREAD
    workspace_id: Unread = UNREAD


class MessagesRequest(CountRequest, kw_only=True, forbid_unknown_fields=True):
    """`max_tokens` 0 reads the prompt into the prefix cache and generates nothing."""

    max_tokens: TokenCount


# Anthropic's servers shorten the conversation by these rules. Here the model reads all of it.
_KEYED = ("context_management", "compaction")
_COUNT = FieldReader(CountRequest, keyed=_KEYED)
_MESSAGES = FieldReader(MessagesRequest, keyed=_KEYED)


def read_request(body: bytes, defaults: SamplingParams, read_tools: ToolReader[ReadTools]) -> ClientRequest:
    asked, others = _MESSAGES.read(body)
    return _client_request(asked, others, asked.max_tokens, defaults, read_tools)


def read_count_request(body: bytes, defaults: SamplingParams, read_tools: ToolReader[ReadTools]) -> ClientRequest:
    return _client_request(*_COUNT.read(body), None, defaults, read_tools)


def _client_request(
    asked: CountRequest,
    others: OtherFields,
    max_tokens: int | None,
    defaults: SamplingParams,
    read_tools: ToolReader[ReadTools],
) -> ClientRequest:
    _refuse(asked)
    read = read_tools(bytes(asked.tools))
    if read.others.keyed:
        others = join_fields(others, read.others)
    choice = asked.tool_choice
    request = GenerationRequest(
        messages=read_messages(_system(asked, read.notice), asked.messages, read.tools),
        tools=read.tools,
        tool_choice=read_tool_choice(choice, read),
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        response_format=_response_format(asked),
        sampling=_sampling(asked, defaults),
        max_tokens=max_tokens,
        stop=tuple(dict.fromkeys(asked.stop_sequences or ())),
        thinking=_thinking(asked.thinking),
        thinking_budget=asked.thinking.budget_tokens if isinstance(asked.thinking, ThinkingEnabled) else None,
        template_arguments=_template_arguments(asked),
        unread_fields=others.keyed,
    )
    return ClientRequest(
        request=request,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=True,
        unknown_fields=others.unknown,
        unread_media=unread_media(asked.messages),
        absent_tools=read.absent,
        web_search=read.web_search,
    )


def _refuse(asked: CountRequest) -> None:
    if asked.thread is not None:
        raise ThreadUnsupported(
            "Invalid 'thread': conversations are not kept here. Send the whole conversation in 'messages', without it.",
            param="thread",
        )
    if asked.container is not None:
        raise UnsupportedValue.at("container", "there are no containers here. Leave it out.")
    if asked.mcp_servers:
        raise UnsupportedValue.at(
            "mcp_servers",
            "this server calls no MCP servers. Leave it out, and offer their tools as 'tools' that the client runs.",
        )


def _system(asked: CountRequest, notice: str) -> str:
    system = asked.system or ""
    if isinstance(system, list):
        system = join_texts([block.text for block in system])
    return "\n\n".join(part for part in (system, notice) if part)


def _sampling(asked: CountRequest, defaults: SamplingParams) -> SamplingParams:
    temperature, top_p = temperature_and_top_p(asked.temperature, asked.top_p, defaults)
    top_k = defaults.top_k if asked.top_k is None else asked.top_k
    return msgspec.structs.replace(defaults, temperature=temperature, top_p=top_p, top_k=top_k)


def _thinking(switch: ThinkingSwitch | None) -> Thinking:
    # Adaptive thinking leaves the choice to the model, like an absent field.
    match switch:
        case ThinkingEnabled():
            return "on"
        case ThinkingDisabled() | ThinkingBetweenTools():
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


def _template_arguments(asked: CountRequest) -> dict[str, Any]:
    """Models with effort levels have templates that read `reasoning_effort`. The latest message that sets one wins."""
    configs = (*(message.output_config for message in reversed(asked.messages)), asked.output_config)
    effort = next((config.effort for config in configs if config and config.effort), None)
    return {"reasoning_effort": effort} if effort in _EFFORTS else {}
