"""From the tokens of one answer to its events: detokenizer, reasoning split, stop strings, parser, in this order.

It runs on the engine's thread: while the next token is computed there is nothing else to do, and a stop string ends
its sequence before another token is asked for.
"""

from typing import Protocol

import msgspec

from service.events import ChoiceFinished, Event, ReasoningDelta, TextDelta, ToolCallAbandoned, ToolCallStarted
from service.executor.output.text import Detokenizer, HeldLogprobs, Scanner, Vocabulary
from service.executor.scheduling.protocols import EndReason, Token, TokenChances
from service.generation import TokenLogprob, TopLogprob
from service.tool_calling.calls import Counts
from service.tool_calling.watch import CallWatch


class ReasoningMarkers(msgspec.Struct, frozen=True):
    """What the model writes around its reasoning, such as `<think>` and `</think>`."""

    start: str
    end: str


class Parser(Protocol):
    """Turns the visible text of one choice into events: text and tool calls. `done`: the one call that was wanted is
    whole."""

    @property
    def done(self) -> bool: ...
    @property
    def counts(self) -> Counts: ...
    def feed(self, text: str) -> list[Event]: ...
    def finish(self, *, truncated: bool) -> list[Event]:
        """`truncated`: it was not the model that ended the text."""
        ...


class ReasoningSplitter:
    """Parts reasoning from answer. Reasoning opens only where no answer has begun: a marker in the middle of an answer
    is talk about markers. White space between the two belongs to neither."""

    def __init__(self, markers: ReasoningMarkers, *, inside: bool) -> None:
        self._markers = markers
        self._end = Scanner([markers.end])
        self._head = ""
        self._answering = False
        self._reasoned = False
        self._reasoning_begun = False
        self.inside = inside

    @property
    def undecided(self) -> bool:
        """Text is held back that may become a marker that opens reasoning."""
        return bool(self._head)

    def feed(self, text: str) -> tuple[str, str]:
        """More reasoning, and more of the answer."""
        if self._answering:
            return "", text
        reasoning, answer = [], ""
        while text:
            if self.inside:
                thought, text = self._read_reasoning(text)
                reasoning.append(thought)
            else:
                answer, text = self._read_head(text)
        return "".join(reasoning), answer

    def finish(self) -> tuple[str, str]:
        head, self._head = self._head, ""
        return self._end.finish(), head if not self._reasoned else head.lstrip()

    def _read_reasoning(self, text: str) -> tuple[str, str]:
        if not self._reasoning_begun:
            text = text.lstrip("\r\n")
            self._reasoning_begun = bool(text)
        thought, rest = self._end.feed(text)
        if self._end.found is not None:
            self._end.found = None
            self.inside = self._reasoning_begun = False
            self._reasoned = True
        return thought, rest

    def _read_head(self, text: str) -> tuple[str, str]:
        """The beginning of an answer, or the marker that opens reasoning, or too little to tell (held back)."""
        head = self._head + text
        body = head.lstrip()
        if body.startswith(self._markers.start):
            self._head = ""
            self.inside = True
            return "", body[len(self._markers.start) :]
        if self._markers.start.startswith(body):
            self._head = head
            return "", ""
        self._head = ""
        self._answering = True
        return body if self._reasoned else head, ""


class ChoiceWriter:
    """The `Writer` of one sequence. Stop strings are looked for in the visible answer, not in reasoning. `vocabulary`
    is None if the request asked for no logprobs."""

    def __init__(
        self,
        choice: int,
        detokenizer: Detokenizer,
        vocabulary: Vocabulary | None,
        parser: Parser,
        *,
        stop: tuple[str, ...] = (),
        reasoning: ReasoningSplitter | None = None,
        watch: CallWatch | None = None,
    ) -> None:
        self.stopped = False
        self.reasoning_tokens = 0
        self._choice = choice
        self._detokenizer = detokenizer
        self._vocabulary = vocabulary
        self._parser = parser
        self._stops = Scanner(stop) if stop else None
        self._reasoning = reasoning
        self._watch = watch
        self._calls = 0
        self._logprobs = HeldLogprobs()
        self._described = False

    def feed(self, token: Token) -> list[Event]:
        self._detokenizer.add_token(token.id)
        text = self._detokenizer.last_segment
        reasoning = self._reasoning
        if reasoning is None:
            thought, visible = "", text
        else:
            was_inside = reasoning.inside
            thought, visible = reasoning.feed(text)
            if was_inside or reasoning.inside:
                self.reasoning_tokens += 1
                token = msgspec.structs.replace(token, chances=None)
                self._logprobs.drop()
        if token.chances is not None and self._vocabulary is not None:
            self._logprobs.add(_describe(token.id, token.chances, self._vocabulary), len(visible))
        events = self._events(thought, visible, last=False)
        if not thought and any(isinstance(event, ReasoningDelta) for event in events):  # a format with channels
            self.reasoning_tokens += 1
        return events

    def finish(self, reason: EndReason) -> list[Event]:
        events: list[Event] = []
        if not self.stopped:
            self._detokenizer.finalize()
            events = self._flush(self._detokenizer.last_segment)
        truncated = not self._parser.done and (reason == "length" or self.stopped)
        self._parsed(events, self._parser.finish(truncated=truncated))
        if self._watch is not None:
            self._watch.finish(self._parser.counts)
        if self._vocabulary is not None and not self._described:
            events.append(TextDelta(self._choice, "", ()))
        if self._calls and not truncated:
            return [*events, ChoiceFinished(self._choice, "tool_calls")]
        return [*events, ChoiceFinished(self._choice, reason, self._stops.found if self._stops else None)]

    def _flush(self, text: str) -> list[Event]:
        if self._reasoning is None:
            return self._events("", text, last=True)
        thought, visible = self._reasoning.feed(text)
        last_thought, last_visible = self._reasoning.finish()
        return self._events(thought + last_thought, visible + last_visible, last=True)

    def _events(self, thought: str, visible: str, *, last: bool) -> list[Event]:
        events: list[Event] = [ReasoningDelta(self._choice, thought)] if thought else []
        held = self._reasoning is not None and self._reasoning.undecided
        if self._stops is not None:
            visible, _ = self._stops.feed(visible)
            self.stopped = self._stops.found is not None
            if last and not self.stopped:
                visible += self._stops.finish()
            held = held or bool(self._stops.held)
        logprobs = self._logprobs.release(len(visible), held=held)
        if visible:
            self._parsed(events, self._parser.feed(visible))
            self.stopped = self.stopped or self._parser.done
        if logprobs:
            self._described = True
            _attach(events, TextDelta(self._choice, "", logprobs))
        return events

    def _parsed(self, events: list[Event], parsed: list[Event]) -> None:
        for event in parsed:
            if isinstance(event, ToolCallStarted):
                self._calls += 1
            elif isinstance(event, ToolCallAbandoned):
                self._calls -= 1
        if self._watch is not None:
            self._watch.feed(parsed)
        events += parsed


def _attach(events: list[Event], delta: TextDelta) -> None:
    for i, event in enumerate(events):
        if isinstance(event, TextDelta):
            events[i] = TextDelta(event.choice, event.text, delta.logprobs)
            return
    events.append(delta)


def _describe(token: int, chances: TokenChances, vocabulary: Vocabulary) -> TokenLogprob:
    exact = vocabulary.token_bytes(token)
    top = []
    for other, logprob in chances.top:
        other_bytes = vocabulary.token_bytes(other)
        top.append(TopLogprob(other_bytes.decode(errors="replace"), other_bytes, logprob))
    return TokenLogprob(exact.decode(errors="replace"), exact, chances.logprob, tuple(top))
