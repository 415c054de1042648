from collections.abc import Callable
from typing import Protocol

import msgspec

from service.events import ChoiceFinished, Event, ReasoningDelta, TextDelta, ToolCallAbandoned, ToolCallStarted
from service.executor.output.held_logprobs import HeldLogprobs
from service.executor.output.reasoning import ReasoningSplitter
from service.executor.output.reasoning_guard import ReasoningGuard
from service.executor.output.string_finder import StringFinder
from service.executor.output.vocabulary import Vocabulary
from service.executor.scheduling.protocols import EndReason, Token, TokenChances
from service.generation import TokenLogprob, TopLogprob
from service.tool_calling.loops import LoopGuard
from service.tool_calling.parser import StreamParser
from service.tool_calling.watch import CallWatch


class Detokenizer(Protocol):
    """mlx-lm's `StreamingDetokenizer`."""

    def add_token(self, token: int) -> None: ...
    def finalize(self) -> None: ...
    @property
    def last_segment(self) -> str: ...


class Watches(msgspec.Struct, frozen=True):
    """`find_calls` reads the calls in reasoning that never ended."""

    calls: CallWatch | None = None
    find_calls: Callable[[str], list[Event]] | None = None
    loops: LoopGuard | None = None
    reasoning: ReasoningGuard | None = None


class ChoiceWriter:
    """Applies, in order: detokenizer, reasoning, stop strings (in the answer only), parser. `vocabulary` is None
    without logprobs."""

    def __init__(
        self,
        choice: int,
        detokenizer: Detokenizer,
        vocabulary: Vocabulary | None,
        parser: StreamParser,
        *,
        stop: tuple[str, ...] = (),
        reasoning: ReasoningSplitter | None = None,
        watches: Watches | None = None,
    ) -> None:
        self.stopped = False
        self.reasoning_tokens = 0
        self._choice = choice
        self._detokenizer = detokenizer
        self._vocabulary = vocabulary
        self._parser = parser
        self._stops = StringFinder(stop) if stop else None
        self._reasoning = reasoning
        watches = watches or Watches()
        self._watch = watches.calls
        self._loops = watches.loops
        self._guard = watches.reasoning
        self._find_calls = watches.find_calls if reasoning is not None else None
        self._thoughts: list[str] = []
        self._calls = 0
        self._logprobs = HeldLogprobs()
        self._described = False

    def feed(self, token: Token) -> list[Event]:
        if self._loops is not None and self._loops.refusal:
            self.stopped = True
            return [TextDelta(self._choice, self._loops.refusal)]
        if self._guard is not None:
            self._guard.feed(token.id)
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
        if self._loops is not None:
            self._loops.feed(token.id)
            self.stopped = self.stopped or self._loops.ended
        if not thought and any(isinstance(event, ReasoningDelta) for event in events):  # the parser reads channels
            self.reasoning_tokens += 1
        return events

    def interjection(self, end: EndReason | None, room: int) -> tuple[int, ...]:
        if self._guard is None or self.stopped or (end == "stop" and self._called_in_thought()):
            return ()
        return self._guard.interjection(end, room)

    def finish(self, reason: EndReason) -> list[Event]:
        events: list[Event] = []
        if not self.stopped:
            self._detokenizer.finalize()
            events = self._flush(self._detokenizer.last_segment)
        truncated = not self._parser.done and (reason == "length" or self.stopped)
        self._parsed(events, self._parser.finish(truncated=truncated))
        if reason == "stop" and not self.stopped and self._reasoning is not None and self._reasoning.inside:
            self._read_thoughts(events)
        if self._watch is not None:
            self._watch.finish(self._parser.counts)
        if self._vocabulary is not None and not self._described:
            events.append(TextDelta(self._choice, "", ()))
        if self._calls and not truncated:
            return [*events, ChoiceFinished(self._choice, "tool_calls")]
        if self._loops is not None and self._loops.ended:
            reason = "length"
        return [*events, ChoiceFinished(self._choice, reason, self._stops.found if self._stops else None)]

    def _flush(self, text: str) -> list[Event]:
        if self._reasoning is None:
            return self._events("", text, last=True)
        thought, visible = self._reasoning.feed(text)
        last_thought, last_visible = self._reasoning.finish()
        return self._events(thought + last_thought, visible + last_visible, last=True)

    def _events(self, thought: str, visible: str, *, last: bool) -> list[Event]:
        events: list[Event] = [ReasoningDelta(self._choice, thought)] if thought else []
        if thought and self._find_calls is not None:
            self._thoughts.append(thought)
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

    def _calls_in_thought(self) -> list[Event]:
        return self._find_calls("".join(self._thoughts)) if self._find_calls is not None else []

    def _called_in_thought(self) -> bool:
        return self._reasoning is not None and self._reasoning.inside and bool(self._calls_in_thought())

    def _read_thoughts(self, events: list[Event]) -> None:
        # The model ended its answer inside its reasoning. A call there would be lost.
        self._parsed(events, self._calls_in_thought())
        if self._watch is not None:
            self._watch.count_unclosed(self._calls)

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
