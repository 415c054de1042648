"""Encodes a stream of `text_completion` objects that ends with `[DONE]`."""

import msgspec

from service.dialects import sse
from service.dialects.base import Reply
from service.dialects.openai_completions.answer import (
    TextChoice,
    TextUsage,
    asked_of,
    text_completion,
    text_logprobs,
    text_usage,
)
from service.dialects.openai_dialect import DONE, ChunkStream
from service.events import ChoiceFinished, Done, Event, TextDelta

_ENCODER = msgspec.json.Encoder()


class TextStream(ChunkStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._asked = asked_of(reply)
        self._lengths: dict[int, int] = {}  # the characters of each choice so far

    def start(self) -> bytes:
        return b""

    def feed(self, event: Event) -> bytes:
        match event:
            case Done(usage):
                counted = self._frame([], text_usage(usage)) if self._reply.include_usage else b""
                return counted + DONE
            case TextDelta(choice, text, logprobs) if text or logprobs:
                found = text_logprobs(logprobs, self._lengths.get(choice, 0)) if logprobs else None
                return self._begin(choice) + self._text(TextChoice(text, choice, found))
            case ChoiceFinished(choice, reason):
                return self._begin(choice) + self._text(TextChoice("", choice, None, reason))
        return b""

    def _begin(self, choice: int) -> bytes:
        """The prompt precedes the first text of a choice if it is echoed."""
        if choice in self._lengths:
            return b""
        self._lengths[choice] = 0
        echo = self._asked.echo(choice)
        return self._frame([TextChoice(echo, choice)]) if echo else b""

    def _text(self, choice: TextChoice) -> bytes:
        self._lengths[choice.index] += len(choice.text)
        return self._frame([choice])

    def _frame(self, choices: list[TextChoice], usage: TextUsage | None = None) -> bytes:
        return sse.frame(_ENCODER.encode(text_completion(self._reply, choices, usage)))
