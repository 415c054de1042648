from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec

from service.errors import ServiceError
from service.executor.prefix.tree import common_length
from service.executor.prompt.renderer import PromptRenderer
from service.executor.scheduling.messages import Prompt
from service.executor.scheduling.protocols import Renderer
from service.generation import GenerationRequest, Message

# No real message begins like it, so the prompts differ from its first character.
OTHER = Message(role="user", content="zq7 other")


class SegmentingRenderer:
    """Adds the ends of messages to each prompt, by comparison with three prompts of `plain` in which messages differ.
    States that cannot be cut need them. The texts are compared, so that one prompt is tokenized and not four; tokens
    are compared if `token_bytes` do not spell the text."""

    def __init__(self, inner: Renderer, plain: PromptRenderer, token_bytes: Callable[[int], bytes]) -> None:
        self._inner = inner
        self._plain = plain
        self._token_bytes = token_bytes

    def render(self, request: GenerationRequest) -> Prompt:
        prompt = self._inner.render(request)
        if request.raw_prompt is not None:
            return prompt
        others = [msgspec.structs.replace(request, messages=each) for each in variations(request.messages)]
        places = self._places_in_text(prompt, request, others)
        if places is None:
            places = {_shared(prompt.tokens, self._tokens(other)) for other in others}
        return msgspec.structs.replace(prompt, boundaries=tuple(sorted(places - {0, len(prompt.tokens)})))

    def count(self, request: GenerationRequest) -> int:
        return self._inner.count(request)

    def _places_in_text(
        self, prompt: Prompt, request: GenerationRequest, others: list[GenerationRequest]
    ) -> set[int] | None:
        text, parts = self._text(request), [self._token_bytes(token) for token in prompt.tokens]
        if text is None or not b"".join(parts).startswith(text):
            return None
        ends = list(accumulate(map(len, parts)))
        return {bisect_right(ends, _shared(text, self._text(other))) for other in others}

    def _text(self, request: GenerationRequest) -> bytes | None:
        try:
            return self._plain.text(request).encode()
        except (ServiceError, UnicodeEncodeError):
            return None

    def _tokens(self, request: GenerationRequest) -> list[int] | None:
        try:
            return self._plain.render(request).tokens
        except ServiceError:
            return None


def _shared(left: Sequence[int], right: Sequence[int] | None) -> int:
    return 0 if right is None else common_length(left, right)


def variations(messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    system = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    answer = Message(role="assistant", content=OTHER.content)
    others = [(*messages[:system], OTHER), (*messages, answer, OTHER)]
    if messages:
        last = msgspec.structs.replace(messages[-1], content=OTHER.content)
        others.append((*messages[:-1], last))
    return others
