import msgspec

from service.errors import ServiceError
from service.executor.prefix.tree import common_length
from service.executor.scheduling.messages import Prompt
from service.executor.scheduling.protocols import Renderer
from service.generation import GenerationRequest, Message

# No real message begins like it, so the tokens differ from its first character.
OTHER = Message(role="user", content="zq7 other")


class SegmentingRenderer:
    """Adds the ends of messages to each prompt, by comparison with three prompts of `plain` in which messages differ.
    States that cannot be cut need them."""

    def __init__(self, inner: Renderer, plain: Renderer) -> None:
        self._inner = inner
        self._plain = plain

    def render(self, request: GenerationRequest) -> Prompt:
        prompt = self._inner.render(request)
        if request.raw_prompt is not None:
            return prompt
        places = {self._shared(prompt, messages, request) for messages in variations(request.messages)}
        return msgspec.structs.replace(prompt, boundaries=tuple(sorted(places - {0, len(prompt.tokens)})))

    def count(self, request: GenerationRequest) -> int:
        return self._inner.count(request)

    def _shared(self, prompt: Prompt, messages: tuple[Message, ...], request: GenerationRequest) -> int:
        try:
            other = self._plain.render(msgspec.structs.replace(request, messages=messages))
        except ServiceError:
            return 0
        return common_length(prompt.tokens, other.tokens)


def variations(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    system = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    answer = Message(role="assistant", content=OTHER.content)
    others = [(*messages[:system], OTHER), (*messages, answer, OTHER)]
    if messages:
        last = msgspec.structs.replace(messages[-1], content=OTHER.content)
        others.append((*messages[:-1], last))
    return others
