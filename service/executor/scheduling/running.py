import logging

import msgspec

from service.events import Event
from service.executor.scheduling.messages import PromptUse, Sequence
from service.executor.scheduling.protocols import EndReason, Token, Writer

log = logging.getLogger(__name__)


class Running:
    """`read` counts tokens of the prompt, `tokens` those `drawn` and end tokens. `use` is set if the answer was
    continued."""

    __slots__ = ("drawn", "read", "reserved", "sent", "sequence", "tokens", "use", "writer")

    def __init__(self, sequence: Sequence, writer: Writer, reserved: int) -> None:
        self.sequence = sequence
        self.writer = writer
        self.reserved = reserved
        self.sent = False
        self.read = 0
        self.tokens = 0
        self.drawn: list[int] = []
        self.use: PromptUse | None = None

    def write(self, token: Token) -> tuple[list[Event], EndReason | None, bool]:
        """Returns events, how the answer ends, and whether it continues behind an interjection."""
        self.tokens += 1
        events = []
        if token.end != "stop":
            self.drawn.append(token.id)
            events = self.writer.feed(token)
        end: EndReason | None = "stop" if self.writer.stopped else token.end
        if more := self.writer.interjection(end, self.reserved - self.tokens):
            self.tokens += len(more)
            self.drawn += more
            events += [event for each in more for event in self.writer.feed(Token(token.sequence, each))]
            return events, None, True
        if end is None and self.tokens >= self.reserved:
            log.info("Sequence %d ends after %d tokens: no memory is left", self.sequence.id, self.tokens)
            end = "length"
        if end is not None:
            events += self.writer.finish(end)
        return events, end, False

    def continuation(self) -> Sequence:
        prompt = self.sequence.prompt
        return msgspec.structs.replace(
            self.sequence,
            prompt=msgspec.structs.replace(prompt, tokens=[*prompt.tokens, *self.drawn]),
            max_tokens=self.sequence.max_tokens - self.tokens,
            answered=len(self.drawn),
        )
