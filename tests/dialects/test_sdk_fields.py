"""A walk over the request types of the official SDKs: each field is read, refused, known to carry no meaning, or in the
response-cache key. A release with new fields fails here until somebody has decided."""

import json
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

import pytest
from anthropic.types import MessageParam
from anthropic.types import message_count_tokens_params as count_params
from anthropic.types import message_create_params as message_params
from anthropic.types.beta import BetaMessageParam
from anthropic.types.beta import message_count_tokens_params as beta_count_params
from anthropic.types.beta import message_create_params as beta_message_params
from anthropic.types.beta.beta_content_block_param import BetaContentBlockParam
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from typing_extensions import is_typeddict

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.anthropic_messages.blocks import AnyBlock, BlockInResult
from service.dialects.anthropic_messages.messages import SentMessage
from service.dialects.anthropic_messages.request import CountRequest, MessagesRequest
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_chat.messages import ChatMessage
from service.dialects.openai_chat.request import ChatRequest
from service.dialects.openai_completions.request import CompletionRequest
from service.dialects.openai_embeddings.request import EmbeddingRequest
from service.dialects.openai_responses import OpenAIResponses
from service.dialects.openai_responses.items import (
    FOREIGN,
    AdditionalToolsItem,
    CallOutputItem,
    CompactionItem,
    CustomCallItem,
    FunctionCallItem,
    ItemReference,
    MessageItem,
    ReasoningItem,
    ToolSearchCallItem,
    ToolSearchOutputItem,
)
from service.dialects.openai_responses.request import ResponsesRequest
from service.generation import SamplingParams

NEVER_SEEN = "field_of_tomorrow"


def fields(*types: Any) -> set[str]:
    return {name for kind in types for name in get_type_hints(kind)}


def members(union: Any) -> Iterable[Any]:
    return get_args(union) or (union,)


WALK = {
    "chat": (
        fields(chat_params.CompletionCreateParamsNonStreaming, chat_params.CompletionCreateParamsStreaming),
        ChatRequest,
    ),
    "chat messages": (fields(*members(ChatCompletionMessageParam)), ChatMessage),
    "responses": (
        fields(response_params.ResponseCreateParamsNonStreaming, response_params.ResponseCreateParamsStreaming),
        ResponsesRequest,
    ),
    "completions": (
        fields(completion_params.CompletionCreateParamsNonStreaming, completion_params.CompletionCreateParamsStreaming),
        CompletionRequest,
    ),
    "embeddings": (fields(embedding_params.EmbeddingCreateParams), EmbeddingRequest),
    "messages": (
        fields(
            message_params.MessageCreateParamsNonStreaming,
            message_params.MessageCreateParamsStreaming,
            beta_message_params.MessageCreateParamsNonStreaming,
            beta_message_params.MessageCreateParamsStreaming,
        ),
        MessagesRequest,
    ),
    "count_tokens": (
        fields(count_params.MessageCountTokensParams, beta_count_params.MessageCountTokensParams),
        CountRequest,
    ),
    "messages of messages": (fields(*members(MessageParam), *members(BetaMessageParam)), SentMessage),
}


@pytest.mark.parametrize(("published", "struct"), WALK.values(), ids=WALK)
def test_every_published_field_is_known(published: set[str], struct: Any) -> None:
    assert len(published) >= 2
    assert published - set(struct.__struct_encode_fields__) == set()


ITEM_STRUCTS = {
    "message": (MessageItem, {"name"}),
    "function_call": (FunctionCallItem, set()),
    "custom_tool_call": (CustomCallItem, set()),
    "tool_search_call": (ToolSearchCallItem, set()),
    "function_call_output": (CallOutputItem, set()),
    "custom_tool_call_output": (CallOutputItem, set()),
    "tool_search_output": (ToolSearchOutputItem, set()),
    "additional_tools": (AdditionalToolsItem, set()),
    "reasoning": (ReasoningItem, set()),
    "compaction": (CompactionItem, set()),
    "item_reference": (ItemReference, set()),
}
REFUSED_ITEMS = {"compaction_trigger", "configuration_update"}


def item_type(item: Any) -> str:
    kind = get_type_hints(item)["type"]
    while not isinstance(kind, str):  # Literal, or Optional of one
        kind = get_args(kind)[0]
    return kind


@pytest.mark.parametrize("item", members(ResponseInputItemParam), ids=lambda item: item.__name__)
def test_every_published_item_is_known(item: Any) -> None:
    kind = item_type(item)
    if kind in ITEM_STRUCTS:
        struct, ignored = ITEM_STRUCTS[kind]
        assert fields(item) - set(struct.__struct_encode_fields__) - ignored == set()
    else:
        assert kind in FOREIGN | REFUSED_ITEMS


def test_every_published_block_is_known() -> None:
    blocks = [block for block in members(BetaContentBlockParam) if is_typeddict(block)]
    published = {get_args(get_type_hints(block)["type"])[0] for block in blocks}
    known = {block.__struct_config__.tag for block in get_args(AnyBlock)}
    assert len(published) > 10
    assert published - known == set()
    assert {block.__struct_config__.tag for block in get_args(BlockInResult)} <= known


def test_an_item_that_nobody_has_published_is_in_the_key() -> None:
    message = {"role": "user", "content": "hi", NEVER_SEEN: 1}
    decoded = OpenAIResponses().decode(json.dumps({"input": [message], NEVER_SEEN: 2}).encode(), SamplingParams())
    assert decoded.request.unread_fields == {NEVER_SEEN: "2", f"input[0].{NEVER_SEEN}": "1"}
    assert decoded.unknown_fields == (NEVER_SEEN, f"input[].{NEVER_SEEN}")


@pytest.mark.parametrize("dialect", [OpenAIChat(), AnthropicMessages()], ids=["chat", "messages"])
def test_what_nobody_has_published_is_in_the_key(dialect: Any) -> None:
    message = {"role": "user", "content": "hi", NEVER_SEEN: 1}
    body = json.dumps({"max_tokens": 5, "messages": [message], NEVER_SEEN: {"x": 2}}).encode()
    decoded = dialect.decode(body, SamplingParams())
    assert decoded.request.unread_fields == {NEVER_SEEN: '{"x":2}', f"messages[0].{NEVER_SEEN}": "1"}
    assert decoded.unknown_fields == (NEVER_SEEN, f"messages[].{NEVER_SEEN}")
