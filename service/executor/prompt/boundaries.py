"""Finds where the messages of a prompt end without knowing its template: by what stays equal when messages change."""

import msgspec

from service.errors import ServiceError
from service.executor.prefix.tree import common_length
from service.executor.scheduling.messages import Prompt
from service.executor.scheduling.protocols import Renderer
from service.generation import GenerationRequest, Message

# It begins like no real message, so the tokens differ from where its text begins.
OTHER = Message(role="user", content="zq7 other")


class SegmentingRenderer:
    """Adds to each prompt of `inner` the boundaries where other prompts will differ, for models whose state cannot be
    cut back to them. `plain` renders three more prompts to compare, each of which costs as much as the prompt."""

    def __init__(self, inner: Renderer, plain: Renderer) -> None:
        self._inner = inner
        self._plain = plain

    def render(self, request: GenerationRequest) -> Prompt:
        prompt = self._inner.render(request)
        places = {self._shared(prompt, messages, request) for messages in variations(request.messages)}
        return msgspec.structs.replace(prompt, boundaries=tuple(sorted(places - {0, len(prompt.tokens)})))

    def count(self, request: GenerationRequest) -> int:
        return self._inner.count(request)

    def _shared(self, prompt: Prompt, messages: tuple[Message, ...], request: GenerationRequest) -> int:
        """Returns how many tokens the prompt shares with that of `messages`; 0 if the template refuses those."""
        try:
            other = self._plain.render(msgspec.structs.replace(request, messages=messages))
        except ServiceError:
            return 0
        return common_length(prompt.tokens, other.tokens)


def variations(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    """Returns what the same client may send next: another question under the same system prompt, the next turn (where
    templates leave out earlier reasoning), and another last message."""
    system = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    answer = Message(role="assistant", content=OTHER.content)
    others = [(*messages[:system], OTHER), (*messages, answer, OTHER)]
    if messages:
        last = msgspec.structs.replace(messages[-1], content=OTHER.content)
        others.append((*messages[:-1], last))
    return others
