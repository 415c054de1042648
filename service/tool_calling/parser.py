from collections.abc import Sequence

import msgspec

from service.events import (
    ChoiceFinished,
    CompletionBuilder,
    Done,
    Event,
    TextDelta,
    ToolCallAbandoned,
    ToolCallDelta,
    ToolCallStarted,
)
from service.generation import Tool, ToolCall, Usage
from service.tallies import CallTally
from service.tool_calling.calls import Calls
from service.tool_calling.ending import EndFilter
from service.tool_calling.families import FAMILIES, fallbacks
from service.tool_calling.family import Opening
from service.tool_calling.scanner import CallScanner
from service.tool_calling.source import Source


class ParsedOutput(msgspec.Struct, frozen=True):
    """`reasoning` comes from formats with channels."""

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    counts: CallTally = msgspec.field(default_factory=CallTally)


class StreamParser:
    """The events do not depend on how the text is split, except for the number of deltas. `done`: with `single`, the
    call is complete.

    Arguments stream. If the text ends inside a call, or the call is damaged, `ToolCallAbandoned` follows, then the
    call's text with its markup as content.
    """

    def __init__(
        self, tools: Sequence[Tool], family: str | None = None, *, choice: int = 0, single: bool = False
    ) -> None:
        """`family` None reads every format. With `single` the text ends with its first call. Raises ValueError for an
        unknown family."""
        self.done = False
        self._choice = choice
        self._single = single
        self._in_call = False
        self._ending = EndFilter()
        self._source = Source()
        self._calls = Calls(self._source, {tool.name: tool for tool in tools}, choice)
        openings = _openings(tools, family)
        self._scan = CallScanner(self._source, self._calls, openings).run() if openings else None

    @property
    def counts(self) -> CallTally:
        return self._calls.counts

    def feed(self, text: str) -> list[Event]:
        text = self._ending.feed(text)
        if self._scan is None:
            return [TextDelta(self._choice, text)] if text else []
        self._source.feed(text)
        return self._events()

    def finish(self, *, truncated: bool = False) -> list[Event]:
        """`truncated`: the model did not end the text itself, so missing brackets are not closed."""
        text = self._ending.finish()
        if self._scan is None:
            return [TextDelta(self._choice, text)] if text else []
        self._source.feed(text)
        self._source.end(truncated=truncated)
        return self._events()

    def _events(self) -> list[Event]:
        if self._scan is None or self.done:
            return []
        next(self._scan, None)
        events = self._calls.events.drain()
        return self._up_to_first_call(events) if self._single else events

    def _up_to_first_call(self, events: list[Event]) -> list[Event]:
        kept: list[Event] = []
        for event in events:
            if self._in_call and not isinstance(event, ToolCallDelta | ToolCallAbandoned):
                break
            self._in_call = isinstance(event, ToolCallStarted | ToolCallDelta)
            kept.append(event)
        self.done = self._in_call and self.counts.calls > 0
        return kept


def parse(text: str, tools: Sequence[Tool], family: str | None = None, *, truncated: bool = False) -> ParsedOutput:
    parser = StreamParser(tools, family)
    builder = CompletionBuilder()
    for event in (*parser.feed(text), *parser.finish(truncated=truncated)):
        builder.feed(event)
    builder.feed(ChoiceFinished(0, "stop"))
    builder.feed(Done(Usage(prompt_tokens=0, completion_tokens=0)))
    choice = builder.build().choices[0]
    return ParsedOutput(choice.text, choice.tool_calls, choice.reasoning, parser.counts)


def whole_calls(text: str, tools: Sequence[Tool], family: str | None, *, choice: int, single: bool) -> list[Event]:
    parser = StreamParser(tools, family, choice=choice, single=single)
    calls: list[list[Event]] = []
    for event in (*parser.feed(text), *parser.finish()):
        if isinstance(event, ToolCallStarted):
            calls.append([event])
        elif isinstance(event, ToolCallDelta):
            calls[-1].append(event)
        elif isinstance(event, ToolCallAbandoned):
            calls.pop()
    return [event for call in calls for event in call]


def _openings(tools: Sequence[Tool], name: str | None) -> tuple[Opening, ...]:
    if name is not None and name not in FAMILIES:
        raise ValueError(f"expected a family of tool call formats ({', '.join(FAMILIES)}), found {name!r}")
    family = FAMILIES.get(name or "")
    own = family.openings if family else ()
    if not tools:
        return own if family and family.frames else ()
    # Models confuse families with the same markers.
    markers = {marker for opening in own for marker in opening.markers}
    others = (
        opening
        for other in FAMILIES.values()
        for opening in (other.openings if other is not family else ())
        if (family is None and opening.place != "start")
        or (opening.place == "anywhere" and markers.intersection(opening.markers))
    )
    return (*own, *others, *fallbacks.openings(tools))
