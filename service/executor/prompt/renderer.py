import inspect
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from service.errors import BadRequest, ContextLengthExceeded
from service.executor.loading.model import PASSIVE_TOKENIZER, import_mlx_lm
from service.executor.output.reasoning import ReasoningMarkers
from service.executor.prompt.call_style import PROBE, find_call_style
from service.executor.prompt.hf_messages import (
    CallStyle,
    HfMessage,
    join,
    plain_chat,
    to_hf_tool,
    user,
    with_tools,
    without_tools,
)
from service.executor.prompt.size_limit import estimate_excess
from service.executor.scheduling.messages import Prompt
from service.generation import GenerationRequest, Message
from service.normalize import canonical_tools
from service.tool_calling import FAMILIES, detect_family
from service.tool_calling.grammar import Thought
from service.tool_calling.instructions import FAMILY, listed_tools

# How many tokens at the end of a prompt may open a reasoning block.
TAIL_TOKENS = 16

# Argument names that transformers takes itself, so that they would not reach the template, or would replace it.
OURS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {"messages"}


def load_renderer(path: Path, context_length: int) -> "PromptRenderer":
    """Raises what mlx-lm and transformers raise for files that they cannot read."""
    tokenizer = import_mlx_lm().load_tokenizer(path, PASSIVE_TOKENIZER)
    return PromptRenderer(tokenizer, context_length=context_length)


class PromptRenderer:
    """Renders with the model's chat template, in transformers' sandbox. `tokenizer` is mlx-lm's. Text never becomes
    control tokens: `<|im_end|>` in a message is spelled out. Used by one thread at a time."""

    def __init__(self, tokenizer: Any, *, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        # Some models have a renderer in Python instead of a template; it takes no further arguments.
        self._has_template = tokenizer.chat_template is not None and getattr(tokenizer, "_chat_template", None) is None
        template = tokenizer.get_chat_template() if self._has_template else ""
        self.knows_tools = "tools" in template if self._has_template else tokenizer.has_chat_template
        self._keeps_first_system = self._shows([_probe("system"), user("a")])
        self._keeps_later_system = self._shows([user("a"), _probe("system")]) and self._shows(
            [user("a"), {"role": "assistant", "content": "b"}, _probe("system"), user("c")]
        )
        indexed_ids = self.tool_family == "kimi_k2"
        self._style = find_call_style(self._shows, indexed_ids=indexed_ids) if self.knows_tools else CallStyle()

    @property
    def reasoning(self) -> ReasoningMarkers | None:
        if not self._tokenizer.has_thinking:
            return None
        return ReasoningMarkers(self._tokenizer.think_start, self._tokenizer.think_end)

    @property
    def tool_family(self) -> str | None:
        """The format of calls that template or instructions teach; None if unknown."""
        if not self.knows_tools:
            return FAMILY
        return detect_family(self._tokenizer.get_chat_template()) if self._has_template else None

    def thought(self, request: GenerationRequest, prompt: Prompt) -> Thought | None:
        """Returns the reasoning that may precede the answer."""
        family = FAMILIES.get(self.tool_family or "")
        if prompt.prefill or (request.thinking == "off" and not prompt.in_reasoning):
            return None
        if family is not None and family.thought is not None:
            return Thought(*family.thought)
        markers = self.reasoning
        return Thought(markers.start, markers.end, prompt.in_reasoning) if markers else None

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `BadRequest` if the template refuses the messages, and `ContextLengthExceeded`."""
        excess = self._excess(request)
        if excess is not None:
            raise ContextLengthExceeded(excess, self._context_length, estimated=True)
        prompt = self._prompt(request)
        if len(prompt.tokens) >= self._context_length:
            raise ContextLengthExceeded(len(prompt.tokens), self._context_length)
        return prompt

    def count(self, request: GenerationRequest) -> int:
        """Returns an estimate for a prompt that is far too long."""
        excess = self._excess(request)
        return len(self._prompt(request).tokens) if excess is None else excess

    def _excess(self, request: GenerationRequest) -> int | None:
        """Returns about how many tokens there are if texts alone are certainly too long."""
        end = self.reasoning.end if self.reasoning else ""
        texts = [_shown(message, end) for message in request.messages]
        texts += [msgspec.json.encode(tool).decode() for tool in listed_tools(request)]
        return estimate_excess(texts, self._encode_plainly, self._context_length)

    def _encode_plainly(self, text: str) -> list[int]:
        return self._encode(text, split_special_tokens=True)

    def _prompt(self, request: GenerationRequest) -> Prompt:
        messages = with_tools(request.messages, self._style) if self.knows_tools else without_tools(request)
        arguments = self._arguments(request)
        begun = begun_answer(request)
        if begun is None:
            return self._question(messages, arguments)
        if begun.content:
            return self._continued(messages, begun.content, arguments)
        if len(messages) == 1:
            raise BadRequest(
                "The only message is an empty one of the assistant: there is nothing to answer. "
                "Put a message of the user before it, or give it text to go on from.",
                param="messages",
            )
        return self._question(messages[:-1], arguments)  # an answer that begins with nothing

    def _question(self, messages: list[HfMessage], arguments: dict[str, Any]) -> Prompt:
        tokens = self._render(messages, {**arguments, "add_generation_prompt": True})
        return Prompt(tokens, self._opens_reasoning(tokens))

    def _continued(self, messages: list[HfMessage], content: str, arguments: dict[str, Any]) -> Prompt:
        """Ends the prompt inside the last message. If the template cannot, `content` follows what begins an answer,
        behind closed reasoning."""
        if self._has_template:
            try:
                return Prompt(self._render(messages, {**arguments, "continue_final_message": True}), prefill=content)
            except BadRequest:
                if len(messages) == 1:
                    raise
        prompt = self._question(messages[:-1], arguments)
        closing = f"\n{self._tokenizer.think_end}\n\n" if prompt.in_reasoning else ""
        tokens = [*prompt.tokens, *self._encode(closing), *self._encode_plainly(content)]
        return Prompt(tokens, prefill=content)

    def _encode(self, text: str, **options: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, **options)) if text else []

    def _arguments(self, request: GenerationRequest) -> dict[str, Any]:
        for name in request.template_arguments:
            if name in OURS:
                raise BadRequest(f"The chat template cannot be given {name!r}.", param="chat_template_kwargs")
        arguments = dict(request.template_arguments)
        if self.knows_tools and (tools := listed_tools(request)):
            arguments["tools"] = [to_hf_tool(tool) for tool in canonical_tools(tools)]
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
        return list(self._tokenizer.apply_chat_template(messages, **arguments))

    def _fit(self, messages: list[HfMessage]) -> list[HfMessage]:
        """Keeps system messages that the template shows. Otherwise joins those at the front, and turns later ones into
        the user's, joined with the next because such templates want roles to alternate."""
        if self._keeps_first_system and self._keeps_later_system:
            return messages
        fitted: list[HfMessage] = []
        for message in messages:
            at_front = all(earlier["role"] == "system" for earlier in fitted)
            if message["role"] == "system" and not (at_front and self._keeps_first_system):
                message = {"role": "user", "content": message["content"]}
            if fitted and fitted[-1]["role"] == message["role"] in ("system", "user"):
                fitted[-1] = {**message, "content": join(fitted[-1]["content"], message["content"])}
            else:
                fitted.append(message)
        return fitted

    def _shows(self, messages: list[HfMessage]) -> bool:
        if not self._tokenizer.has_chat_template:
            return True
        try:
            tokens = self._apply(messages, {"add_generation_prompt": True})
        except Exception:  # templates raise whatever they like
            return False
        return PROBE in self._tokenizer.decode(tokens)

    def _opens_reasoning(self, tokens: list[int]) -> bool:
        if not self._tokenizer.has_thinking:
            return False
        return bool(self._tokenizer.decode(tokens[-TAIL_TOKENS:]).rstrip().endswith(self._tokenizer.think_start))


def begun_answer(request: GenerationRequest) -> Message | None:
    """Returns the last message if it begins the answer."""
    last = request.messages[-1] if request.messages else None
    return last if last is not None and last.role == "assistant" and not last.tool_calls else None


def _shown(message: Message, reasoning_end: str) -> str:
    """Returns the text without reasoning, which templates leave out of earlier turns."""
    arguments = "".join(call.arguments for call in message.tool_calls)
    content = message.content
    if message.role == "assistant" and reasoning_end:
        content = content.rpartition(reasoning_end)[2]
    return content + arguments


def _probe(role: str) -> HfMessage:
    return {"role": role, "content": PROBE}
