import secrets
from collections.abc import Mapping

from service.events import Event, ReasoningDelta, TextDelta, ToolCallAbandoned, ToolCallDelta, ToolCallStarted
from service.generation import Tool
from service.tallies import CallTally
from service.tool_calling.source import Malformed, Source

NAMESPACE = "functions."
_SPACE = " \t\r\n"


def new_call_id() -> str:
    """Returns 24 characters that are valid in every protocol."""
    return "call_" + secrets.token_urlsafe(18)


class Calls:
    def __init__(self, source: Source, tools: Mapping[str, Tool], choice: int) -> None:
        self.counts = CallTally()
        self.tools = tools
        self.events = EventQueue(choice)
        self.said_text = False
        self.after_call = False
        self._source = source
        self._space: list[str] = []  # white space that is content only if text follows
        self._consumed: list[str] = []

    def text(self, text: str) -> None:
        """White space next to a call is markup, unless text is on its other side."""
        body = text.rstrip(_SPACE)
        if body:
            self.events.text("".join(self._space) + body)
            self._space.clear()
            self.after_call = False
            self.said_text = True
        if len(body) < len(text):
            self._space.append(text[len(body) :])

    def finish(self) -> None:
        if not self.after_call:
            self.events.text("".join(self._space))
        self._space.clear()

    def attempt(self) -> "CallAttempt":
        return CallAttempt(self, self._source)

    # Calls that count only if nothing follows them

    def trial(self) -> "Calls":
        """Returns a second output for the same text: `adopt` it, or add its `consumed` text."""
        return Calls(self._source, self.tools, self.events.choice)

    @property
    def consumed(self) -> str:
        """The text of all attempts, with the white space between them."""
        return "".join(self._consumed)

    def consume(self, text: str) -> None:
        self._consumed.append(text)

    def adopt(self, trial: "Calls") -> None:
        self.events.extend(trial.events.drain())
        self.counts.add(trial.counts)
        self.after_call = True


class CallAttempt:
    """A reader calls `start`, `write` and `end` for each call, `begin` before it, and `absorb` after markup; the rest
    of the read text is content. So are calls of unknown tools. Once `settled` a call has been sent, and no other reader
    can be tried."""

    def __init__(self, calls: Calls, source: Source) -> None:
        self.tools = calls.tools
        self.settled = False
        self._calls = calls
        self._source = source
        self._inside = True  # in a call, perhaps before its name
        self._open = False  # the call has been sent
        self._muted = False  # the call becomes text
        self._repairs = 0
        source.mark()

    def text(self, text: str) -> None:
        self._calls.text(text)

    def reasoning(self, text: str) -> None:
        self._calls.events.reasoning(text)

    def begin(self) -> None:
        self._inside = True
        if self._muted:
            self.absorb()
            self._muted = False

    def offered(self, name: str) -> str:
        """Returns the tool's own name. Some models put OpenAI's namespace before it, or write `bash` for `Bash`."""
        plain = name.removeprefix(NAMESPACE)
        exact = next((each for each in (name, plain) if each in self.tools), None)
        if exact is not None:
            return exact
        alike = [tool for tool in self.tools if _loosely(tool) == _loosely(plain)]
        return alike[0] if len(alike) == 1 else name

    def start(self, name: str) -> None:
        """Raises `Malformed` for an empty name."""
        written, name = name, self.offered(name)
        if not name:
            raise Malformed
        if name not in (written, written.removeprefix(NAMESPACE)):
            self.repaired()
        self.settled = True
        self._muted = name not in self.tools
        if self._muted:
            self._calls.counts.unknown += 1
        else:
            self._open = True
            self._calls.events.start(name)

    def write(self, arguments: str) -> None:
        if self._open:
            self._calls.events.arguments(arguments)

    def end(self) -> None:
        if self._open:
            self._open = False
            self._calls.after_call = True
            self._calls.counts.calls += 1
            self._calls.counts.repaired += self._repairs
        self._repairs = 0
        self._inside = False
        self.absorb()

    def repaired(self) -> None:
        if self._inside:
            self._repairs += 1
        elif not self._muted:
            self._calls.counts.repaired += 1

    def absorb(self) -> None:
        """Drops the text read so far as markup. For a call of an unknown tool it is content."""
        read = self._source.marked
        self._source.mark()
        self._calls.consume(read)
        if self._muted:
            self._calls.text(read)

    def finish(self) -> None:
        rest = self._source.marked
        self._source.unmark()
        self._calls.consume(rest)
        self._calls.text(rest)

    def fail(self, *, cut: bool) -> None:
        if cut:
            self._calls.counts.cut += self._inside
        else:
            self._calls.counts.broken += self._open
        if self._open:
            self._calls.events.abandon()
            self._open = False


def _loosely(name: str) -> str:
    return name.strip().lower().replace("-", "_")


class EventQueue:
    """Merges neighbouring deltas of one kind."""

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
