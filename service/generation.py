"""The canonical types of requests and answers (leaf).

Every field of `GenerationRequest` is part of the response-cache key. What does not change the answer (streaming, user,
metadata, request ids) stands in `dialects.base.ClientRequest`.
"""

from typing import Annotated, Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
Thinking = Literal["default", "on", "off"]


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """`arguments` is the text of one JSON object as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """System messages may stand anywhere. A `tool` message answers the call `tool_call_id`; `is_error` means that the
    tool failed. An assistant's `reasoning` came before its `content`."""

    role: Role
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    is_error: bool = False


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """`parameters` is a JSON Schema of type object. A `deferred` tool is not in the prompt's list of tools: a message
    defines it. `grammar` is in llguidance's Lark, for the text of a tool with one argument."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = False
    deferred: bool = False
    grammar: str = ""


class ToolChoice(msgspec.Struct, frozen=True):
    """`required` means at least one call; with `name`, of that tool."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str = ""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """With a `schema` (JSON Schema) the answer is valid under it. `grammar` is llguidance's Lark or GBNF."""

    kind: Literal["json_object", "json_schema", "grammar"]
    schema: dict[str, Any] | None = None
    grammar: str = ""
    name: str = ""
    strict: bool = False


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are greedy decoding, and every neutral value turns its rule off. `temperature` 0 is argmax; `top_k`
    0 is all tokens; `logit_bias` maps token ids to addends."""

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
    """A prompt without a chat template. `tokens` replace the `text`. With a `suffix`, the answer stands between both.
    `embeds`: the answer is the prompt's embedding, as base64 of float32 numbers, little-endian."""

    text: str = ""
    tokens: tuple[int, ...] | None = None
    suffix: str | None = None
    embeds: bool = False


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults are resolved. `max_tokens` None means the rest of the context, 0 means to read the prompt only.
    `logprobs` is the number of alternatives to each token (0 to 20). `template_arguments` go to the chat template.
    `caller` is a digest of the caller's key, if keys are required: nobody is answered from another's cache.
    `unread_fields` maps fields that are not read to their JSON text, because an answer may depend on them. `no_store`:
    nothing of the request stays behind, in the prefix cache neither. A `raw_prompt` has no messages or tools."""

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
    """Natural logarithms. `token` has U+FFFD for a broken character; `token_bytes` are exact."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    text: str


Part = Text | Reasoning | ToolCall


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """`parts` stand in the order of the text; neighbours differ in kind, except that calls may follow calls."""

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


# 64 bits hold it, and so do the numbers of JavaScript.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """In tokens. `cached_tokens` of the prompt came from the prefix cache; `prefix_stored_tokens` were added to it.
    `completion_tokens` include all choices and their reasoning."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    cached_tokens: Tokens = 0
    prefix_stored_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A finished answer, as the response cache stores it."""

    choices: tuple[Choice, ...]
    usage: Usage
