"""A tolerant streaming reader of JSON (RFC 8259). Valid text passes unchanged.

It repairs errors that have only one reading: trailing commas, single quotes, raw control characters in strings, a
backslash that escapes nothing, keys without quotes, Python's constants, and brackets not closed before the end.
Everything else is `Malformed`. Numbers and strings are never decoded, so no digit and no escape changes.
"""

import json
import re
from collections.abc import Callable, Container, Mapping
from typing import ClassVar

from service.tool_calling.source import SPACE, Cut, Malformed, NotACall, Reading, Source

Write = Callable[[str], None]

MAX_DEPTH = 200
_PLAIN = {'"': re.compile(r'[^"\\\x00-\x1f]*'), "'": re.compile(r"""[^"'\\\x00-\x1f]*""")}
_NUMBER_CHARACTERS = re.compile(r"[-+0-9.eE]*")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORD_CHARACTERS = re.compile(r"[A-Za-z0-9_$-]*")
_SURROGATES = re.compile("[\ud800-\udfff]")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
CONSTANTS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}


def escape(text: str) -> str:
    """Escapes `text` for the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def ignore(_: str) -> None: ...


class _Bracket:
    def __init__(self, closer: str, json_closer: str) -> None:
        self.closer = closer
        self.json_closer = json_closer
        self.members = 0


class JsonReader:
    """Writes valid JSON. `ends` are markers that can follow only a whole value, so missing brackets are closed before
    them. `repaired` is called for each repair."""

    containers: ClassVar[Mapping[str, tuple[str, str, str]]] = {"{": ("}", "{", "}"), "[": ("]", "[", "]")}
    quotes: ClassVar[Container[str]] = _PLAIN

    def __init__(self, source: Source, repaired: Callable[[], None] = lambda: None, ends: tuple[str, ...] = ()) -> None:
        self._source = source
        self._repaired = repaired
        self._ends = ends
        self._open: list[_Bracket] = []

    def value(self, write: Write) -> Reading[None]:
        depth = len(self._open)
        yield from self._value(write)
        while len(self._open) > depth:
            if not (yield from self.more(write)):
                continue
            if self._open[-1].json_closer == "}":
                yield from self.key(write)
            yield from self._value(write)

    def open(self, write: Write, *brackets: str) -> Reading[None]:
        bracket = yield from self._source.which(brackets)
        if not bracket:
            yield from self._source.refuse()
        if len(self._open) == MAX_DEPTH:
            raise Malformed
        self._source.take(1)
        closer, json_opener, json_closer = self.containers[bracket]
        self._open.append(_Bracket(closer, json_closer))
        write(json_opener)

    def more(self, write: Write) -> Reading[bool]:
        """Returns False, and closes the innermost container, if it has no next member."""
        top = self._open[-1]
        before = yield from self._source.run(SPACE)
        after = ""
        comma = bool(top.members) and (yield from self._source.skip(","))
        if comma:
            after = yield from self._source.run(SPACE)
        if (yield from self._source.skip(top.closer)):
            self._close(write, before + after, trailing_comma=comma)
            return False
        if (yield from self._ends_here(after_value=bool(top.members) and not comma)):
            self._repaired()
            self._close(write, before + after, trailing_comma=False)
            return False
        if top.members and not comma:
            raise Malformed
        write(f"{before},{after}" if comma else before)
        top.members += 1
        return True

    def key(self, write: Write) -> Reading[None]:
        """Reads a key and its colon, up to the value."""
        first = yield from self._source.peek()
        if first in self.quotes:
            yield from self.string(write, first)
        else:
            word = yield from self._source.run(_WORD_CHARACTERS)
            if not word:
                yield from self._source.refuse()
            self._repaired()
            write(f'"{word}"')
        before = yield from self._source.run(SPACE)
        yield from self._source.expect(":")
        write(before + ":" + (yield from self._source.run(SPACE)))

    def key_text(self, write: Write = ignore) -> Reading[str]:
        """Returns the key decoded."""
        pieces: list[str] = []
        yield from self.key(pieces.append)
        text = "".join(pieces)
        write(text)
        return decode_string(text.rstrip(" \t\r\n:"))

    def string_text(self) -> Reading[str]:
        # No text can hold half of a surrogate pair.
        quote = yield from self._source.peek()
        if quote not in self.quotes:
            yield from self._source.refuse()
        pieces: list[str] = []
        yield from self.string(pieces.append, quote)
        text = decode_string("".join(pieces))
        if _SURROGATES.search(text):
            raise Malformed
        return text

    def string(self, write: Write, quote: str) -> Reading[None]:
        self._source.take(1)
        write('"')
        if quote != '"':
            self._repaired()
        while True:
            write(self._source.take_while(_PLAIN[quote]))
            char = yield from self._source.peek()
            if not char:
                raise Cut
            if char == "\\":
                yield from self._escape(write)
                continue
            if not _PLAIN[quote].fullmatch(char):
                self._source.take(1)
                if char == quote:
                    break
                if char != '"':
                    self._repaired()
                write(escape(char))
        write('"')

    def _escape(self, write: Write) -> Reading[None]:
        pair = yield from self._source.peek(2)
        if len(pair) < 2:
            raise Cut
        if pair[1] in '"\\/bfnrt':
            write(self._source.take(2))
        elif pair[1] == "u":
            whole = yield from self._source.peek(6)
            if len(whole) < 6 and _HEX.match(whole[2:].ljust(4, "0")):
                raise Cut
            if _HEX.match(whole[2:]):
                write(self._source.take(6))
            else:
                self._literal_backslash(write)
        elif pair[1] == "'":
            self._repaired()
            write(self._source.take(2)[1])
        else:
            self._literal_backslash(write)

    def _literal_backslash(self, write: Write) -> None:
        self._repaired()
        self._source.take(1)
        write("\\\\")

    def _value(self, write: Write) -> Reading[None]:
        first = yield from self._source.peek()
        if not first:
            raise Cut
        if first in self.containers:
            yield from self.open(write, first)
        elif first in self.quotes:
            yield from self.string(write, first)
        elif _NUMBER_CHARACTERS.fullmatch(first) and first not in "eE":
            yield from self.number(write)
        else:
            yield from self._word(write)

    def number(self, write: Write) -> Reading[None]:
        number = yield from self._source.run(_NUMBER_CHARACTERS)
        if self._open and not (yield from self._source.peek()):
            raise Cut
        if not NUMBER.fullmatch(number):
            raise Malformed
        write(number)

    def _word(self, write: Write) -> Reading[None]:
        word = yield from self._source.run(_WORD_CHARACTERS)
        if word not in CONSTANTS:
            if any(known.startswith(word) for known in CONSTANTS):
                yield from self._source.refuse()
            raise Malformed
        if word != CONSTANTS[word]:
            self._repaired()
        write(CONSTANTS[word])

    def _close(self, write: Write, space: str, *, trailing_comma: bool) -> None:
        if trailing_comma:
            self._repaired()
        write(space + self._open.pop().json_closer)

    def _ends_here(self, *, after_value: bool) -> Reading[bool]:
        """Returns True if the container ends here without its own bracket."""
        char = yield from self._source.peek()
        if not char:
            if self._source.truncated or not after_value:
                raise Cut
            return True
        if char in "}])":
            return True
        return bool((yield from self._source.which(self._ends)))


def decode_string(text: str) -> str:
    return str(json.loads(text))


def repair(text: str, reader: type[JsonReader] = JsonReader) -> str | None:
    """Returns None if `text` cannot be repaired."""
    source = Source()
    source.feed(text)
    source.end(truncated=False)
    pieces: list[str] = []
    try:
        for _ in _alone(reader(source), source, pieces.append):
            raise AssertionError("a reader waits for more than the end")
    except NotACall:
        return None
    return "".join(pieces)


def _alone(reader: JsonReader, source: Source, write: Write) -> Reading[None]:
    yield from source.run(SPACE)
    yield from reader.value(write)
    yield from source.run(SPACE)
    if (yield from source.peek()):
        raise Malformed
