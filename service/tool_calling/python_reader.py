"""Reads Python literals as they stream and writes JSON, for calls such as `[f(a=1)]`. Nothing is evaluated."""

import re
import unicodedata
from collections.abc import Mapping
from typing import ClassVar

from service.tool_calling.json_reader import NUMBER, JsonReader, Write, escape
from service.tool_calling.source import Cut, Malformed, Reading

_PLAIN = {quote: re.compile(f"[^{quote}\\\\\x00-\x1f]*") for quote in "\"'"}
_NUMBER_CHARACTERS = re.compile(r"[-+0-9A-Za-z._]*")
_FLOAT = re.compile(r"([-+]?)([0-9]*)(\.[0-9]*)?((?:[eE][-+]?[0-9]+)?)")
_BASED = re.compile(r"[-+]?0[xXoObB][0-9a-fA-F]{1,1000}")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": ""}
_CODE_DIGITS = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile(r"[0-9a-fA-F]+")
_OCTAL = re.compile(r"[0-7]{1,3}")
_CHARACTER_NAME = re.compile(r"[A-Z0-9 -]*")


class PythonReader(JsonReader):
    """Strings as in the Python reference (2.4.1), without prefixes; numbers, tuples, lists, dicts, and the constants of
    Python and of JSON, because templates mix the two."""

    containers: ClassVar[Mapping[str, tuple[str, str, str]]] = {**JsonReader.containers, "(": (")", "[", "]")}

    def string(self, write: Write, quote: str) -> Reading[None]:
        opening = yield from self._source.peek(3)
        end = quote * 3 if opening == quote * 3 else quote
        self._source.take(len(end))
        write('"')
        while not (yield from self._source.skip(end)):
            write(escape(self._source.take_while(_PLAIN[quote])))
            char = yield from self._source.peek()
            if not char:
                raise Cut
            if char == "\\":
                yield from self._python_escape(write)
            elif not _PLAIN[quote].fullmatch(char) and not (yield from self._source.which((end,))):
                write(escape(self._source.take(1)))
        write('"')

    def _python_escape(self, write: Write) -> Reading[None]:
        pair = yield from self._source.peek(2)
        if len(pair) < 2:
            raise Cut
        self._source.take(1)
        kind = pair[1]
        if kind in "\\'\"":
            write(escape(self._source.take(1)))
        elif kind in _ESCAPES:
            self._source.take(1)
            write(escape(_ESCAPES[kind]))
        elif kind in _CODE_DIGITS:
            self._source.take(1)
            yield from self._code_point(write, _CODE_DIGITS[kind])
        elif _OCTAL.match(kind):
            digits = _OCTAL.match((yield from self._source.peek(3)))
            write(escape(chr(int(self._source.take(len(digits[0] if digits else "")), 8))))
        elif kind == "N":
            self._source.take(1)
            yield from self._named_character(write)
        else:
            write("\\\\")  # an unknown escape is its backslash

    def _code_point(self, write: Write, digits: int) -> Reading[None]:
        code = yield from self._source.peek(digits)
        if len(code) < digits:
            raise Cut
        if not _HEX.fullmatch(code) or int(code, 16) > 0x10FFFF:
            raise Malformed
        self._source.take(digits)
        character = int(code, 16)
        half_of_a_pair = 0xD800 <= character <= 0xDFFF  # no character, but JSON writes two of them for one
        write(f"\\u{character:04x}" if half_of_a_pair else escape(chr(character)))

    def _named_character(self, write: Write) -> Reading[None]:
        yield from self._source.expect("{")
        name = yield from self._source.run(_CHARACTER_NAME)
        yield from self._source.expect("}")
        try:
            write(escape(unicodedata.lookup(name)))
        except KeyError:
            raise Malformed from None

    def number(self, write: Write) -> Reading[None]:
        text = (yield from self._source.run(_NUMBER_CHARACTERS)).replace("_", "")
        if not (yield from self._source.peek()):
            raise Cut
        decimal = _FLOAT.fullmatch(text)
        if NUMBER.fullmatch(text):
            write(text)
        elif _BASED.fullmatch(text):
            write(str(_based(text)))
        elif decimal and (decimal[2] or len(decimal[3] or "") > 1):
            sign, whole, fraction, exponent = decimal[1], decimal[2], decimal[3] or "", decimal[4]
            fraction = fraction if len(fraction) != 1 else ".0"
            self._write_number(write, f"{sign.replace('+', '')}{whole or '0'}{fraction}{exponent}")
        else:
            raise Malformed

    def _write_number(self, write: Write, number: str) -> None:
        if not NUMBER.fullmatch(number):
            raise Malformed
        write(number)

    def _close(self, write: Write, space: str, *, trailing_comma: bool) -> None:
        top = self._open[-1]
        if top.closer == ")" and top.members == 1 and not trailing_comma:
            raise Malformed  # no tuple, but brackets around a value
        super()._close(write, space, trailing_comma=False)


def _based(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise Malformed from None
