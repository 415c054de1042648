"""The canonical types of requests and answers. Every field of `GenerationRequest` is part of the response-cache key.
Fields that cannot change the answer belong to `dialects.base.ClientRequest`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
Thinking = Literal["default", "on", "off"]


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """`arguments` is the text of a JSON object as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """System messages may appear anywhere. A `tool` message answers the call `tool_call_id`. `reasoning` precedes the
    `content`."""

    role: Role
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    is_error: bool = False


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """`parameters` is a JSON Schema of type object. A message defines a `deferred` tool, not the prompt's list.
    `grammar` (llguidance's Lark) is for a tool with one text argument."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = False
    deferred: bool = False
    grammar: str = ""


class ToolChoice(msgspec.Struct, frozen=True):
    """`required`: at least one call, of the tool `name` if given."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str = ""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is valid under `schema` (JSON Schema) or `grammar` (llguidance's Lark, or GBNF)."""

    kind: Literal["json_object", "json_schema", "grammar"]
    schema: dict[str, Any] | None = None
    grammar: str = ""
    name: str = ""
    strict: bool = False


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are greedy decoding. `temperature` 0 is argmax; `top_k` 0 is all tokens; `logit_bias` maps token ids
    to addends."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None


class RawPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt without a chat template. `tokens` replace the `text`. The answer goes between `text` and `suffix`. If it
    `embeds`, the answer is base64 of little-endian float32."""

    text: str = ""
    tokens: tuple[int, ...] | None = None
    suffix: str | None = None
    embeds: bool = False


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults are resolved. `max_tokens`: None is the rest of the context, 0 only reads the prompt. `logprobs`:
    alternatives to each token (0 to 20). `thinking_budget` is in tokens. `end_loops` and `answer_after_reasoning` are
    settings of the server. `caller`: digest of the key, if keys are required, so callers never share answers.
    `unread_fields` are JSON text, because an answer may depend on them. `no_store`: neither cache keeps anything. A
    `raw_prompt` has no messages or tools."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    thinking: Thinking = "default"
    thinking_budget: int | None = None
    end_loops: bool = False
    answer_after_reasoning: bool = True
    template_arguments: dict[str, Any] = {}
    caller: str = ""
    unread_fields: dict[str, str] = {}
    no_store: bool = False
    raw_prompt: RawPrompt | None = None


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    token: str
    token_bytes: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Natural logarithms. `token` has U+FFFD for an incomplete character; `token_bytes` are exact."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str


class SearchResult(msgspec.Struct, frozen=True):
    """`published` is the search engine's own wording."""

    url: str
    title: str
    snippet: str = ""
    published: str | None = None


SearchError = Literal["invalid_tool_input", "max_uses_exceeded", "query_too_long", "too_many_requests", "unavailable"]


class WebSearch(ToolCall, frozen=True, tag="web_search"):
    """A call that this server ran itself."""

    results: tuple[SearchResult, ...] = ()
    error: SearchError | None = None


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    text: str


Part = Text | Reasoning | ToolCall | WebSearch


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """`parts` are in the order of the text. Only calls follow a part of their own kind."""

    parts: tuple[Part, ...]
    finish_reason: FinishReason
    stop_sequence: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


# 64 bits hold it, and so do JavaScript's numbers.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """`cached_tokens` were read from the prefix cache, `prefix_stored_tokens` were added to it.
    `completion_tokens` include all choices and their reasoning."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    cached_tokens: Tokens = 0
    prefix_stored_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0


def total_usage(usages: Sequence[Usage]) -> Usage:
    fields = Usage.__struct_fields__
    return Usage(**{field: sum(getattr(usage, field) for usage in usages) for field in fields})


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    choices: tuple[Choice, ...]
    usage: Usage
