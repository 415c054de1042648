"""Decodes a request for a response. Null means absent."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from service.dialects.base import ClientRequest, WebSearchTool
from service.dialects.body_fields import UNREAD, FieldReader, OtherFields, Unread, join_fields
from service.dialects.json_body import MAX_MESSAGES, check_depth, check_free_form, check_utf8, choose, on_one_line
from service.dialects.openai_dialect import EFFORTS
from service.dialects.openai_responses.items import ReadItems, read_items
from service.dialects.openai_responses.kept import CallersResponses
from service.dialects.openai_responses.tools import NamedTools, ToolChoiceObject, WireName, read_tool_choice
from service.dialects.openai_sampling import SamplingFields, read_sampling
from service.dialects.sampling import TokenCount
from service.errors import BadRequest, MissingParameter, PreviousResponseGone, UnsupportedValue
from service.generation import GenerationRequest, Message, ResponseFormat, SamplingParams

_FORMATS: dict[str, Literal["text", "json_object", "json_schema"]] = {
    "text": "text",
    "json_object": "json_object",
    "json_schema": "json_schema",
}
ENCRYPTED, LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"


class TextFormat(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`generate_summary` is the older name of `summary`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    input: str | Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_MESSAGES)] | None = None
    instructions: str | None = None
    model: str | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    include: list[str] | None = None
    max_output_tokens: TokenCount | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None

    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: str | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, msgspec.Meta(ge=0)] | None = None

    background: bool | None = None
    conversation: Any = None
    prompt: Any = None

    context_management: Unread = UNREAD
    image: Unread = UNREAD

    metadata: Unread = UNREAD
    access_programs: Unread = UNREAD
    background_options: Unread = UNREAD
    client_metadata: Unread = UNREAD
    moderation: Unread = UNREAD
    prompt_cache_key: Unread = UNREAD
    prompt_cache_options: Unread = UNREAD
    prompt_cache_retention: Unread = UNREAD
    safety_identifier: Unread = UNREAD
    service_tier: Unread = UNREAD
    stream_options: Unread = UNREAD
    user: Unread = UNREAD


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The `dialect_state` of a response: fields that it repeats, and the names of tools. `items` are its input.
    `is_kept`: later requests may name it."""

    body: ResponsesRequest
    names: dict[str, WireName]
    items: tuple[msgspec.Raw, ...]
    sampling: SamplingParams
    is_kept: bool

    @property
    def has_summaries(self) -> bool:
        reasoning = self.body.reasoning
        return reasoning is not None and (reasoning.summary or reasoning.generate_summary) is not None

    @property
    def has_encrypted_reasoning(self) -> bool:
        return ENCRYPTED in (self.body.include or ())


_BODY = FieldReader(ResponsesRequest, keyed=("context_management", "image"))


def read_request(
    body: bytes, defaults: SamplingParams, read_tools: Callable[[bytes], NamedTools], kept: CallersResponses
) -> ClientRequest:
    asked, others = _read_body(body)
    _refuse(asked)
    items = read_items(_earlier(asked, kept), asked.input or (), kept)
    read = _joined(read_tools(bytes(asked.tools)), items.tools)
    others = join_fields(others, read.others, items.others)
    choice, tools = read_tool_choice(asked.tool_choice, read)
    sampling = read_sampling(asked, defaults)
    request = GenerationRequest(
        messages=_messages(asked, read, items),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=asked.parallel_tool_calls is not False or not tools,
        response_format=_response_format(asked.text),
        sampling=sampling,
        max_tokens=asked.max_output_tokens,
        logprobs=_logprobs(asked),
        thinking="off" if asked.reasoning and asked.reasoning.effort == "none" else "default",
        template_arguments=_template_arguments(asked),
        unread_fields=_keyed(asked, others),
    )
    return ClientRequest(
        request=request,
        model=asked.model,
        stream=bool(asked.stream),
        dialect_state=Asked(
            body=asked,
            names=dict(read.names),
            items=items.raws,
            sampling=sampling,
            is_kept=asked.store is not False,
        ),
        unknown_fields=others.unknown,
        unread_media=items.unread_media,
        absent_tools=read.absent,
        web_search=_web_search(asked, read),
    )


def _read_body(body: bytes) -> tuple[ResponsesRequest, OtherFields]:
    asked, others = _BODY.read(body)
    check_utf8(body)
    # Every event that holds the response repeats these.
    asked.tools = on_one_line(asked.tools, "tools")
    asked.metadata = on_one_line(asked.metadata, "metadata")
    asked.user = on_one_line(asked.user, "user")
    check_depth(asked.metadata, "metadata")
    check_depth(asked.user, "user")
    return asked, others


def _refuse(asked: ResponsesRequest) -> None:
    if asked.input is None and asked.previous_response_id is None and asked.prompt is None:
        raise MissingParameter("input")
    for name, refused in (
        ("background", asked.background or None),
        ("conversation", asked.conversation),
        ("prompt", asked.prompt),
    ):
        if refused is not None:
            raise UnsupportedValue.at(
                name, "only OpenAI's servers have it. Leave it out, and send the items as 'input'."
            )


def _earlier(asked: ResponsesRequest, kept: CallersResponses) -> Sequence[msgspec.Raw]:
    if asked.previous_response_id is None:
        return ()
    conversation = kept.conversation(asked.previous_response_id)
    if conversation is None:
        raise PreviousResponseGone(asked.previous_response_id)
    return conversation


def _web_search(asked: ResponsesRequest, read: NamedTools) -> WebSearchTool | None:
    """The client's own calls do not count in `max_tool_calls`."""
    if read.web_search is None:
        return None
    return msgspec.structs.replace(read.web_search, max_uses=asked.max_tool_calls)


def _joined(read: NamedTools, added: NamedTools) -> NamedTools:
    """Returns the tools of the request, then those that arrived in mid-conversation."""
    if not added.tools:
        return read
    new = tuple(tool for tool in added.tools if tool.name not in read.names)
    return msgspec.structs.replace(read, tools=read.tools + new, names={**added.names, **read.names})


def _messages(asked: ResponsesRequest, read: NamedTools, items: ReadItems) -> tuple[Message, ...]:
    system = "\n\n".join(text for text in (asked.instructions, read.notice) if text)
    messages = ((Message(role="system", content=system),) if system else ()) + items.messages
    if not messages:
        raise BadRequest.at("input", "expected at least one item.")
    return messages


def _response_format(text: TextConfig | None) -> ResponseFormat | None:
    if text is None or text.format is None:
        return None
    wanted = text.format
    kind = choose(wanted.type, _FORMATS, "text.format.type")
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat(kind=kind)
    if wanted.schema is None:
        raise MissingParameter("text.format.schema")
    check_free_form(wanted.schema, "text.format.schema")
    return ResponseFormat(kind=kind, schema=wanted.schema, name=wanted.name or "", strict=bool(wanted.strict))


def _logprobs(asked: ResponsesRequest) -> int | None:
    if asked.top_logprobs is None and LOGPROBS not in (asked.include or ()):
        return None
    return asked.top_logprobs or 0


def _template_arguments(asked: ResponsesRequest) -> dict[str, Any]:
    if asked.reasoning is None or asked.reasoning.effort is None:
        return {}
    effort = choose(asked.reasoning.effort, EFFORTS, "reasoning.effort")
    return {} if effort == "none" else {"reasoning_effort": effort}


def _keyed(asked: ResponsesRequest, others: OtherFields) -> dict[str, str]:
    """The verbosity has the name that chat completions use."""
    if asked.text is None or asked.text.verbosity is None:
        return others.keyed
    return {**others.keyed, "verbosity": msgspec.json.encode(asked.text.verbosity).decode()}
