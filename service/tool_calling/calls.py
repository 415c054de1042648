"""What the readers of call formats write to: text and calls become events, and nothing that was read gets lost."""

import secrets
from collections.abc import Mapping

import msgspec

from service.events import Event, ReasoningDelta, TextDelta, ToolCallAbandoned, ToolCallDelta, ToolCallStarted
from service.generation import Tool
from service.tool_calling.source import Malformed, Source

NAMESPACE = "functions."
_SPACE = " \t\r\n"


class Counts(msgspec.Struct):
    """`calls` are whole; `repairs` were made in them. `cut_calls` broke off with the text, `broken_calls` cannot be
    read, `unknown_tools` name no tool on offer: the text of these three is in the content."""

    calls: int = 0
    repairs: int = 0
    cut_calls: int = 0
    broken_calls: int = 0
    unknown_tools: int = 0

    def add(self, other: "Counts") -> None:
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))


def new_call_id() -> str:
    """18 random bytes in the URL-safe alphabet: 24 characters, well formed for every protocol."""
    return "call_" + secrets.token_urlsafe(18)


class Calls:
    """The output of a parser.

    A format's reader says `start`, `write`, `end` for a call, `begin` before each call of a block, and `absorb` when
    what it has read was markup. What it consumed and did not absorb is text. A call to a tool that is not on offer
    goes through the same steps, and comes out as text.
    """

    def __init__(self, source: Source, tools: Mapping[str, Tool], choice: int) -> None:
        self.counts = Counts()
        self.tools = tools
        self.said_text = False
        self._source = source
        self._events = _EventQueue(choice)
        self._space: list[str] = []  # white space that is content only if text follows
        self._read: list[str] = []
        self._after_call = False
        self._started = False  # a call is open on the wire
        self._muted = False  # a call is read that is to be text
        self._repairs = 0
        self._inside = False  # in a call, perhaps not yet known which
        self.settled = False

    def text(self, text: str) -> None:
        """Content. White space next to a call is part of the call's markup, unless text stands on its other side."""
        body = text.rstrip(_SPACE)
        if body:
            self._events.text("".join(self._space) + body)
            self._space.clear()
            self._after_call = False
            self.said_text = True
        if len(body) < len(text):
            self._space.append(text[len(body) :])

    def reasoning(self, text: str) -> None:
        self._events.reasoning(text)

    def finish(self) -> None:
        """The text is at its end."""
        if not self._after_call:
            self._events.text("".join(self._space))
        self._space.clear()

    def drain(self) -> list[Event]:
        """The events since the last time, neighbours of one kind in one."""
        return self._events.drain()

    # One reader's attempt

    def attempt(self) -> None:
        """A reader begins, before its opening marker. `settled` becomes true with its first call: from there on no
        other reader can be tried on the same text."""
        self._source.mark()
        self._started = self._muted = self.settled = False
        self._inside = True
        self._repairs = 0

    def fail(self, *, cut: bool) -> None:
        """The reader gave up."""
        if cut:
            self.counts.cut_calls += self._inside
        else:
            self.counts.broken_calls += self._started
        if self._started:
            self._events.abandon()
            self._started = False

    def finish_attempt(self) -> None:
        """The reader's part of the text is over: what it left is text."""
        rest = self._source.marked
        self._source.unmark()
        self._read.append(rest)
        self.text(rest)

    def begin(self) -> None:
        """Another call of the block may begin here."""
        self._inside = True
        if self._muted:
            self.absorb()
            self._muted = False

    def offered(self, name: str) -> str:
        """The name as the tool has it: some models put OpenAI's namespace before it."""
        plain = name.removeprefix(NAMESPACE)
        return plain if name not in self.tools and plain in self.tools else name

    def start(self, name: str) -> None:
        name = self.offered(name)
        if not name:
            raise Malformed
        self.settled = True
        self._muted = name not in self.tools
        if self._muted:
            self.counts.unknown_tools += 1
        else:
            self._started = True
            self._events.start(name)

    def write(self, arguments: str) -> None:
        if self._started:
            self._events.arguments(arguments)

    def end(self) -> None:
        if self._started:
            self._started = False
            self._after_call = True
            self.counts.calls += 1
            self.counts.repairs += self._repairs
        self._repairs = 0
        self._inside = False
        self.absorb()

    def repaired(self) -> None:
        """A repair counts if the call that it is for becomes whole, or is."""
        if self._inside:
            self._repairs += 1
        elif not self._muted:
            self.counts.repairs += 1

    def absorb(self) -> None:
        """What was read up to here is markup; next to a call to an unknown tool it is text all the same."""
        read = self._source.marked
        self._source.mark()
        self._read.append(read)
        if self._muted:
            self.text(read)

    # Calls that count only if nothing follows

    def trial(self) -> "Calls":
        """Another output for the same text, to be adopted or to be forgotten."""
        return Calls(self._source, self.tools, self._events.choice)

    @property
    def read(self) -> str:
        """Everything that the attempts of this output have read."""
        return "".join(self._read)

    def pass_over(self, text: str) -> None:
        """White space between attempts."""
        self._read.append(text)

    def adopt(self, trial: "Calls") -> None:
        self._events.extend(trial.drain())
        self.counts.add(trial.counts)
        self._after_call = True


class _EventQueue:
    """Events in their order, with neighbouring deltas of a kind in one."""

    def __init__(self, choice: int) -> None:
        self.choice = choice
        self._events: list[Event] = []
        self._kind: type[TextDelta] | type[ReasoningDelta] | type[ToolCallDelta] = TextDelta
        self._pieces: list[str] = []

    def text(self, text: str) -> None:
        self._delta(TextDelta, text)

    def reasoning(self, text: str) -> None:
        self._delta(ReasoningDelta, text)

    def arguments(self, text: str) -> None:
        self._delta(ToolCallDelta, text)

    def start(self, name: str) -> None:
        self._flush()
        self._events.append(ToolCallStarted(self.choice, new_call_id(), name))

    def abandon(self) -> None:
        self._flush()
        self._events.append(ToolCallAbandoned(self.choice))

    def drain(self) -> list[Event]:
        self._flush()
        events, self._events = self._events, []
        return events

    def extend(self, events: list[Event]) -> None:
        self._flush()
        self._events.extend(events)

    def _delta(self, kind: type[TextDelta] | type[ReasoningDelta] | type[ToolCallDelta], text: str) -> None:
        if not text:
            return
        if kind is not self._kind:
            self._flush()
            self._kind = kind
        self._pieces.append(text)

    def _flush(self) -> None:
        if self._pieces:
            self._events.append(self._kind(self.choice, "".join(self._pieces)))
            self._pieces.clear()
