import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from service.errors import BadRequest, ContextLengthExceeded
from service.executor.loading.model import PASSIVE_TOKENIZER, import_mlx_lm
from service.executor.prompt.hf_messages import (
    HfMessage,
    instructed,
    plain_chat,
    to_hf_tool,
    with_tools,
    without_tools,
)
from service.executor.prompt.raw import raw_tokens
from service.executor.prompt.size_limit import estimate_excess
from service.executor.prompt.template import ChatTemplate, named_templates
from service.executor.scheduling.messages import Prompt, ReasoningForm, ReasoningMarkers
from service.generation import GenerationRequest, Message, RawPrompt
from service.normalize import canonical_tools
from service.tool_calling import FAMILIES
from service.tool_calling.grammar import Thought
from service.tool_calling.instructions import listed_tools

# The end of a prompt that may open a reasoning block, in tokens.
TAIL_TOKENS = 16

# transformers reads these arguments itself: they would not reach the template, or would replace it.
OURS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {"messages"}


def load_renderer(path: Path, context_length: int) -> "PromptRenderer":
    """Raises what mlx-lm and transformers raise."""
    tokenizer = import_mlx_lm().load_tokenizer(path, PASSIVE_TOKENIZER)
    return PromptRenderer(tokenizer, context_length=context_length)


class PromptRenderer:
    """Renders in transformers' sandbox, on one thread at a time. `tokenizer` is mlx-lm's. Text never becomes control
    tokens: `<|im_end|>` in a message is spelled out."""

    def __init__(self, tokenizer: Any, *, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._plain, self._tooled = named_templates(tokenizer)

    @property
    def knows_tools(self) -> bool:
        return self._tooled.knows_tools

    @property
    def reasoning(self) -> ReasoningMarkers | None:
        return self._plain.reasoning

    @property
    def tool_family(self) -> str | None:
        """None if unknown."""
        return self._tooled.family

    def thought(self, request: GenerationRequest, prompt: Prompt) -> Thought | None:
        """Returns the reasoning that may precede the answer."""
        family = FAMILIES.get(self.tool_family or "")
        if request.raw_prompt is not None or prompt.prefill or (request.thinking == "off" and not prompt.in_reasoning):
            return None
        if family is not None and family.thought is not None:
            return Thought(*family.thought, prompt.in_reasoning)
        markers = self.reasoning
        return Thought(markers.opens, markers.closes, prompt.in_reasoning) if markers else None

    def render(self, request: GenerationRequest) -> Prompt:
        """Raises `ContextLengthExceeded`, and `BadRequest` if the template refuses the messages."""
        self._refuse(self._excess(request))
        prompt = self._prompt(request)
        if len(prompt.tokens) >= self._context_length:
            raise ContextLengthExceeded(len(prompt.tokens), self._context_length)
        thought = self.thought(request, prompt)
        return prompt if thought is None else msgspec.structs.replace(prompt, reasoning=self._form(thought))

    def text(self, request: GenerationRequest) -> str:
        """Returns the text of a chat's prompt up to where the answer begins. Raises `BadRequest`."""
        template = self._tooled if listed_tools(request) else self._plain
        messages = self._messages(request, template)
        arguments = {**self._arguments(request, template), "add_generation_prompt": True}
        if begun_answer(request) is not None:
            messages = messages[:-1]
        with _refusals():
            return template.text(template.fit(messages), arguments)

    def count(self, request: GenerationRequest) -> int:
        """Returns an estimate, if the prompt is far too long."""
        excess = self._excess(request)
        return len(self._prompt(request).tokens) if excess is None else excess

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Raises `ContextLengthExceeded` if the text is far too long."""
        self._refuse(estimate_excess((text,), self._encode_plainly, self._context_length))
        return list(self._tokenizer.encode(text, add_special_tokens=special)) if text else []

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Raises `BadRequest` for unknown tokens."""
        return (
            str(self._tokenizer.decode(raw_tokens(RawPrompt(tokens=tuple(tokens)), self._tokenizer))) if tokens else ""
        )

    def _form(self, thought: Thought) -> ReasoningForm:
        family = FAMILIES.get(self.tool_family or "")
        answer = family.answer if family is not None and family.thought is not None else "\n\n"
        closing, begun = self._encode(thought.closes), self._encode(answer)
        return ReasoningForm(thought.opens, thought.closes, tuple(closing), tuple(begun))

    def _refuse(self, excess: int | None) -> None:
        if excess is not None:
            raise ContextLengthExceeded(excess, self._context_length, estimated=True)

    def _excess(self, request: GenerationRequest) -> int | None:
        """Returns an estimate of the tokens, if the texts alone are certainly too long."""
        if request.raw_prompt is not None:
            raw = request.raw_prompt
            return estimate_excess((raw.text, raw.suffix or ""), self._encode_plainly, self._context_length)
        end = self.reasoning.closes if self.reasoning else ""
        texts = [_shown(message, end) for message in request.messages]
        texts += [msgspec.json.encode(tool).decode() for tool in listed_tools(request)]
        return estimate_excess(texts, self._encode_plainly, self._context_length)

    def _encode_plainly(self, text: str) -> list[int]:
        return self._encode(text, split_special_tokens=True)

    def _prompt(self, request: GenerationRequest) -> Prompt:
        if request.raw_prompt is not None:
            return Prompt(raw_tokens(request.raw_prompt, self._tokenizer))
        template = self._tooled if listed_tools(request) else self._plain
        messages = self._messages(request, template)
        arguments = self._arguments(request, template)
        begun = begun_answer(request)
        if begun is None:
            return self._question(template, messages, arguments)
        if begun.content:
            return self._continued(template, messages, begun.content, arguments)
        if len(messages) == 1:
            raise BadRequest(
                "The only message is an empty one of the assistant: there is nothing to answer. "
                "Put a message of the user before it, or give it text to go on from.",
                param="messages",
            )
        return self._question(template, messages[:-1], arguments)  # an answer with an empty beginning

    def _messages(self, request: GenerationRequest, template: ChatTemplate) -> list[HfMessage]:
        if not template.shows_calls:
            return instructed(without_tools(request, template.form), request, template.form)
        messages = with_tools(request.messages, template.style)
        return messages if template.knows_tools else instructed(messages, request, template.form)

    def _question(self, template: ChatTemplate, messages: list[HfMessage], arguments: dict[str, Any]) -> Prompt:
        tokens = self._render(template, messages, {**arguments, "add_generation_prompt": True})
        return Prompt(tokens, self._opens_reasoning(tokens))

    def _continued(
        self, template: ChatTemplate, messages: list[HfMessage], content: str, arguments: dict[str, Any]
    ) -> Prompt:
        if template.is_jinja:
            try:
                tokens = self._render(template, messages, {**arguments, "continue_final_message": True})
                return Prompt(tokens, prefill=content)
            except BadRequest:
                if len(messages) == 1:
                    raise
        # The template cannot end inside the last message, so the text follows the beginning of an answer.
        prompt = self._question(template, messages[:-1], arguments)
        closing = f"\n{self.reasoning.closes}\n\n" if prompt.in_reasoning and self.reasoning else ""
        control = template.control_tokens
        tokens = [*prompt.tokens, *self._encode(closing), *control.encode(control.mark(content))]
        return Prompt(tokens, prefill=content)

    def _encode(self, text: str, **options: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, **options)) if text else []

    def _arguments(self, request: GenerationRequest, template: ChatTemplate) -> dict[str, Any]:
        for name in request.template_arguments:
            if name in OURS:
                raise BadRequest(
                    f"The chat template argument {name!r} is reserved. Leave it out.", param="chat_template_kwargs"
                )
        arguments = dict(request.template_arguments)
        if template.knows_tools and (tools := listed_tools(request)):
            arguments["tools"] = [to_hf_tool(tool) for tool in canonical_tools(tools)]
        if request.thinking != "default":
            arguments["enable_thinking"] = request.thinking == "on"
            if template.is_jinja:  # the same switch by its other name
                arguments["thinking"] = request.thinking == "on"
        return arguments

    def _render(self, template: ChatTemplate, messages: list[HfMessage], arguments: dict[str, Any]) -> list[int]:
        if not self._tokenizer.has_chat_template:
            return list(self._tokenizer.encode(plain_chat(messages)))
        with _refusals():
            return template.apply(template.fit(messages), arguments)

    def _opens_reasoning(self, tokens: list[int]) -> bool:
        if self.reasoning is None:
            return False
        return bool(self._tokenizer.decode(tokens[-TAIL_TOKENS:]).rstrip().endswith(self.reasoning.opens))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (TemplateError, TypeError, ValueError, KeyError) as exc:
        raise BadRequest(f"The model's chat template refuses these messages: {exc}", param="messages") from exc


def begun_answer(request: GenerationRequest) -> Message | None:
    last = request.messages[-1] if request.messages else None
    return last if last is not None and last.role == "assistant" and not last.tool_calls else None


def _shown(message: Message, reasoning_end: str) -> str:
    # Templates leave out the reasoning of earlier turns.
    arguments = "".join(call.arguments for call in message.tool_calls)
    content = message.content
    if message.role == "assistant" and reasoning_end:
        content = content.rpartition(reasoning_end)[2]
    return content + arguments
