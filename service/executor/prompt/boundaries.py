"""Where the messages of a prompt end, found without knowing its template: by what stays the same when others change."""

import msgspec

from service.errors import ServiceError
from service.executor.prefix.tree import common_length
from service.executor.scheduling.messages import Prompt
from service.executor.scheduling.protocols import Renderer
from service.generation import GenerationRequest, Message

OTHER = Message(role="user", content="zq7 other")
"""Begins like no real message, so that the tokens part where its text begins."""


class SegmentingRenderer:
    """Marks in each prompt of `inner` the places where other prompts will part from it: for models whose state cannot
    be cut back to them, and has to be kept there. `plain` renders the prompts that are compared; each costs about what
    the prompt itself costs."""

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
        """How many tokens the prompt shares with that of other messages; 0 where the template refuses those."""
        try:
            other = self._plain.render(msgspec.structs.replace(request, messages=messages))
        except ServiceError:
            return 0
        return common_length(prompt.tokens, other.tokens)


def variations(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    """What other requests of the same client will send: another question under the same system prompt and tools;
    another last message; and the next turn, where templates leave out what was thought before."""
    system = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    answer = Message(role="assistant", content=OTHER.content)
    others = [(*messages[:system], OTHER), (*messages, answer, OTHER)]
    if messages:
        last = msgspec.structs.replace(messages[-1], content=OTHER.content)
        others.append((*messages[:-1], last))
    return others
