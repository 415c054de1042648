import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.json_reader import JsonReader, ignore, repair
from service.tool_calling.source import SPACE, Malformed, Reading, Source

NAME_KEYS = ("name", "function", "tool_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args")
FENCE = "```"
_FENCE_INFO = re.compile(r"[a-z_]*")
_STRAY = re.compile(r"[}\] \t\r\n]*")


def read_arguments(source: Source, attempt: CallAttempt, name: str, *ends: str) -> Reading[None]:
    yield from begin_call(source, attempt, name, *ends)
    attempt.end()


def begin_call(source: Source, attempt: CallAttempt, name: str, *ends: str) -> Reading[None]:
    """Reads the arguments and leaves the call open."""
    if (yield from source.peek()) != "{":
        yield from source.refuse()
    attempt.start(name)
    yield from JsonReader(source, attempt.repaired, ends).value(attempt.write)


def read_calls(source: Source, attempt: CallAttempt, *ends: str, bare: bool = False) -> Reading[None]:
    """Reads one call, a list of calls, or several in a row. With `bare` no markup identifies calls, so an unknown tool
    or argument means that the text is no call."""
    yield from source.run(SPACE)
    in_list = yield from source.skip("[")
    yield from source.run(SPACE)
    while True:
        attempt.begin()
        yield from _CallObject(source, attempt, ends, bare).read()
        attempt.absorb()
        yield from source.run(SPACE)
        yield from source.skip(",", ";")
        yield from source.run(SPACE)
        if in_list and (yield from source.skip("]")):
            attempt.absorb()
            return
        if (yield from source.peek()) != "{":
            return
        attempt.absorb()


def read_end(source: Source, attempt: CallAttempt, *ends: str) -> Reading[None]:
    """Drops surplus brackets before the marker; without a marker they are text."""
    yield from source.run(SPACE)
    if (yield from source.run(_STRAY)):
        attempt.repaired()
    while (yield from source.skip(*ends)):
        attempt.absorb()
        yield from source.run(SPACE)


def read_fence(source: Source) -> Reading[bool]:
    fenced = yield from source.skip(FENCE)
    if fenced:
        yield from source.run(_FENCE_INFO)
        yield from source.run(SPACE)
    return fenced


def read_fence_end(source: Source, *, fenced: bool) -> Reading[None]:
    if fenced:
        yield from source.run(SPACE)
        yield from source.skip(FENCE)


class _CallObject:
    """Arguments stream once the name is known, which usually comes first."""

    def __init__(self, source: Source, attempt: CallAttempt, ends: tuple[str, ...], bare: bool) -> None:
        self._source = source
        self._attempt = attempt
        self._bare = bare
        self._json = JsonReader(source, attempt.repaired, ends)
        self._name = ""
        self._kept: list[str] | None = None  # arguments of an object that may not be a call
        self._done = False

    def read(self) -> Reading[None]:
        yield from self._members(nested=False)
        if self._done and self._bare:
            self._attempt.end()
        if self._done:
            return
        if self._kept is None:
            if self._bare:
                raise Malformed
            self._kept = ["{}"]
        self._start()
        self._finish()

    def _members(self, *, nested: bool) -> Reading[None]:
        yield from self._json.open(ignore, "{")
        while (yield from self._json.more(ignore)):
            key = yield from self._json.key_text()
            if key == "function" and not nested and (yield from self._source.peek()) == "{":
                yield from self._members(nested=True)
            elif key in NAME_KEYS and not self._name:
                yield from self._read_name()
            elif key in ARGUMENT_KEYS and not self._done and self._kept is None:
                yield from self._read_arguments()
            elif self._bare and key not in ("type", "id"):
                raise Malformed
            else:
                yield from self._json.value(ignore)

    def _read_name(self) -> Reading[None]:
        self._name = yield from self._json.string_text()
        if not self._name or (self._bare and self._name not in self._attempt.tools):
            raise Malformed
        if self._kept is not None:
            self._start()
            self._finish()

    def _read_arguments(self) -> Reading[None]:
        self._kept = []
        first = yield from self._source.peek()
        if first == "{":
            yield from self._read_object()
        else:
            self._kept.append((yield from self._other_arguments(first)))
            if self._name:
                self._start()
        if self._kept is None:
            self._finish()

    def _other_arguments(self, first: str) -> Reading[str]:
        if first in self._json.quotes:
            text = repair((yield from self._json.string_text()) or "{}")
        else:
            pieces: list[str] = []
            yield from self._json.value(pieces.append)
            text = "{}" if pieces == ["null"] else None
        if text is None or not text.lstrip().startswith("{"):
            raise Malformed
        return text

    def _read_object(self) -> Reading[None]:
        if self._name and not self._bare:
            self._start()
        yield from self._json.open(self._write, "{")
        while (yield from self._json.more(self._write)):
            key = yield from self._json.key_text(self._write)
            if self._name and self._kept is not None:
                self._check_plausible(key)
                self._start()
            yield from self._json.value(self._write)
        if self._name and self._kept is not None:
            self._start()

    def _write(self, text: str) -> None:
        if self._kept is None:
            self._attempt.write(text)
        else:
            self._kept.append(text)

    def _check_plausible(self, key: str) -> None:
        # A tool's definition has a name and parameters too.
        properties = self._attempt.tools[self._name].parameters.get("properties")
        if isinstance(properties, dict) and properties and key not in properties:
            raise Malformed

    def _start(self) -> None:
        self._attempt.start(self._name)
        self._attempt.write("".join(self._kept or ()))
        self._kept = None

    def _finish(self) -> None:
        # A `bare` call ends with its object, because unknown members may follow.
        self._done = True
        if not self._bare:
            self._attempt.end()
