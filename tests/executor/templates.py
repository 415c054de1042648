"""Chat templates without a model: what prompts are rendered with in these tests."""

from typing import Any

from service.executor.prompt.renderer import PromptRenderer
from service.generation import GenerationRequest, Message, ToolCall


class TokenizerParts:
    """mlx-lm's `TokenizerWrapper`, as far as prompts need it, without importing MLX."""

    def __init__(self, tokenizer: Any, template: str | None, *, thinking: bool = False) -> None:
        self._tokenizer = tokenizer
        self.chat_template = template
        self.has_chat_template = template is not None
        self.has_thinking = thinking
        self.think_start, self.think_end = "<think>", "</think>"
        self.added_tokens_decoder = tokenizer.added_tokens_decoder

    def get_chat_template(self) -> str | None:
        return self.chat_template

    def apply_chat_template(self, messages: list[dict[str, Any]], **arguments: Any) -> Any:
        arguments = {"enable_thinking": self.has_thinking, **arguments, "return_dict": False}
        return self._tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **arguments)

    def encode(self, text: str, **options: bool) -> Any:
        return self._tokenizer.encode(text, **options)

    def decode(self, tokens: list[int]) -> Any:
        return self._tokenizer.decode(tokens)


def rendered(tokenizer: Any, template: str | None, request: GenerationRequest, *, thinking: bool = False) -> str:
    parts = TokenizerParts(tokenizer, template, thinking=thinking)
    tokens = PromptRenderer(parts, context_length=4096).render(request).tokens
    return str(tokenizer.decode(tokens))


def called(*calls: ToolCall) -> tuple[Message, ...]:
    results = tuple(Message(role="tool", content="done", tool_call_id=call.id) for call in calls)
    return (Message(role="user", content="Look."), Message(role="assistant", tool_calls=calls), *results)
