"""From a request to the tokens that the model reads, by the model's own chat template.

The template runs in transformers' sandbox. Text of messages and tools never becomes control tokens: `<|im_end|>` in a
user's message is spelled out, so that nobody writes another's turn.
"""

import inspect
from typing import Any

import msgspec
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from service.errors import BadRequest, ContextLengthExceeded
from service.executor.messages import Prompt
from service.executor.output import ReasoningMarkers
from service.generation import GenerationRequest, Message, Tool, ToolCall
from service.tool_calling import detect_family
from service.tool_calling.instructions import FAMILY, calls_as_text, instructions, result_as_text

HfMessage = dict[str, Any]

TAIL_TOKENS = 16
"""How far from the end of a prompt an opened reasoning block is looked for."""

PROBE = "zq7 probe"

OURS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {"messages"}
"""Names in a template's arguments that would not reach the template, or would replace it."""


class PromptRenderer:
    """`tokenizer` is mlx-lm's `TokenizerWrapper`. Used by one thread at a time."""

    def __init__(self, tokenizer: Any, *, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        # A renderer in Python, which some models have in place of a template, takes no further arguments.
        self._has_template = tokenizer.chat_template is not None and getattr(tokenizer, "_chat_template", None) is None
        template = tokenizer.get_chat_template() if self._has_template else ""
        self._knows_tools = "tools" in template if self._has_template else tokenizer.has_chat_template
        self._keeps_first_system = self._shows([_probe("system"), _user("a")])
        self._keeps_later_system = self._shows([_user("a"), _probe("system")]) and self._shows(
            [_user("a"), {"role": "assistant", "content": "b"}, _probe("system"), _user("c")]
        )

    @property
    def reasoning(self) -> ReasoningMarkers | None:
        if not self._tokenizer.has_thinking:
            return None
        return ReasoningMarkers(self._tokenizer.think_start, self._tokenizer.think_end)

    @property
    def tool_family(self) -> str | None:
        """The format of tool calls that the model is taught, by its template or by us; None is not known."""
        if not self._knows_tools:
            return FAMILY
        return detect_family(self._tokenizer.get_chat_template()) if self._has_template else None

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `BadRequest` for what the template refuses, and `ContextLengthExceeded`."""
        tokens = self._tokens(request)
        if len(tokens) >= self._context_length:
            raise ContextLengthExceeded(len(tokens), self._context_length)
        return Prompt(tokens, self._opens_reasoning(tokens))

    def count(self, request: GenerationRequest) -> int:
        """The prompt's length in tokens, also where it does not fit."""
        return len(self._tokens(request))

    def _tokens(self, request: GenerationRequest) -> list[int]:
        if self._knows_tools:
            messages = [to_hf(message, request.messages) for message in request.messages]
        else:
            messages = without_tools(request)
        return self._render(messages, self._arguments(request))

    def _arguments(self, request: GenerationRequest) -> dict[str, Any]:
        for name in request.template_arguments:
            if name in OURS:
                raise BadRequest(f"The chat template cannot be given {name!r}.", param="chat_template_kwargs")
        arguments = dict(request.template_arguments)
        if self._knows_tools and (tools := offered_tools(request)):
            arguments["tools"] = [to_hf_tool(tool) for tool in tools]
        if request.thinking != "default":
            arguments["enable_thinking"] = request.thinking == "on"
            if self._has_template:  # the same switch by its other name
                arguments["thinking"] = request.thinking == "on"
        return arguments

    def _render(self, messages: list[HfMessage], arguments: dict[str, Any]) -> list[int]:
        if not self._tokenizer.has_chat_template:
            return list(self._tokenizer.encode(plain_chat(messages)))
        try:
            return self._apply(self._fit(messages), arguments)
        except (TemplateError, TypeError, ValueError, KeyError) as exc:
            raise BadRequest(f"The model's chat template refuses these messages: {exc}", param="messages") from exc

    def _apply(self, messages: list[HfMessage], arguments: dict[str, Any]) -> list[int]:
        if self._has_template:
            arguments = {**arguments, "sanitize_control_tokens": True}
        return list(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, **arguments))

    def _fit(self, messages: list[HfMessage]) -> list[HfMessage]:
        """System messages stay where they are if the template shows them there. Else those at the front become one, and
        later ones speak as the user, in the same place, joined with the user's own turn because such templates want
        turns to alternate."""
        if self._keeps_first_system and self._keeps_later_system:
            return messages
        fitted: list[HfMessage] = []
        for message in messages:
            at_front = all(earlier["role"] == "system" for earlier in fitted)
            if message["role"] == "system" and not (at_front and self._keeps_first_system):
                message = {"role": "user", "content": message["content"]}
            if fitted and fitted[-1]["role"] == message["role"] in ("system", "user"):
                fitted[-1] = {**message, "content": _join(fitted[-1]["content"], message["content"])}
            else:
                fitted.append(message)
        return fitted

    def _shows(self, messages: list[HfMessage]) -> bool:
        """Whether the probe's text comes out of the template."""
        if not self._tokenizer.has_chat_template:
            return True
        try:
            tokens = self._apply(messages, {})
        except Exception:  # templates raise whatever they like
            return False
        return PROBE in self._tokenizer.decode(tokens)

    def _opens_reasoning(self, tokens: list[int]) -> bool:
        if not self._tokenizer.has_thinking:
            return False
        return bool(self._tokenizer.decode(tokens[-TAIL_TOKENS:]).rstrip().endswith(self._tokenizer.think_start))


def offered_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    return () if request.tool_choice.mode == "none" else request.tools


def without_tools(request: GenerationRequest) -> list[HfMessage]:
    """For templates that know no tools: definitions, calls and results as text of the roles that there are."""
    messages: list[HfMessage] = []
    for message in request.messages:
        hf = to_hf(message, request.messages)
        if message.role == "tool":
            hf = _user(result_as_text(message.content, name=hf.get("name", ""), is_error=message.is_error))
        elif message.tool_calls:
            hf = {**hf, "content": calls_as_text(message.content, message.tool_calls)}
            del hf["tool_calls"]
        messages.append(hf)
    text = instructions(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)
    if text and messages and messages[0]["role"] == "system":
        messages[0] = {**messages[0], "content": _join(messages[0]["content"], text)}
    elif text:
        messages.insert(0, {"role": "system", "content": text})
    return messages


def to_hf(message: Message, conversation: tuple[Message, ...]) -> HfMessage:
    """As chat templates expect it. A tool's result names its function, which some templates print."""
    hf: HfMessage = {"role": message.role, "content": message.content}
    if message.reasoning:
        hf["reasoning_content"] = message.reasoning
    if message.tool_calls:
        hf["tool_calls"] = [_to_hf_call(call) for call in message.tool_calls]
    if message.role == "tool":
        hf["tool_call_id"] = message.tool_call_id
        name = _called_name(message.tool_call_id, conversation)
        if name:
            hf["name"] = name
        if message.is_error:
            hf["content"] = f"Error: {message.content}"
    return hf


def to_hf_tool(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def plain_chat(messages: list[HfMessage]) -> str:
    """For base models, which have no chat template: turns marked by their role, as a transcript to go on with."""
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


def _to_hf_call(call: ToolCall) -> dict[str, Any]:
    """Arguments as an object, which templates iterate or print as JSON; text that is none is passed on as it is."""
    arguments: Any = call.arguments
    try:
        decoded = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        decoded = None
    if isinstance(decoded, dict):
        arguments = decoded
    return {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _called_name(call_id: str, conversation: tuple[Message, ...]) -> str:
    calls = (call for message in conversation for call in message.tool_calls)
    return next((call.name for call in calls if call.id == call_id), "")


def _user(content: str) -> HfMessage:
    return {"role": "user", "content": content}


def _probe(role: str) -> HfMessage:
    return {"role": role, "content": PROBE}


def _join(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first else second
