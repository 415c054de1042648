"""Gemma 4 and FunctionGemma: `call:NAME{KEY:VALUE,...}` between markers; strings stand between quotes of their own."""

import re
from collections.abc import Callable, Container
from typing import ClassVar

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, Reader, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.json_calls import read_end
from service.tool_calling.json_reader import CONSTANTS, NUMBER, JsonReader, Write, escape
from service.tool_calling.source import SPACE, Cut, Reading, Source

_NAME = re.compile(r"[\w.-]*")
_BARE = re.compile(r"[^,{}\[\]:]*")
_BARE_VALUE = re.compile(r"[^,}\]]*")
_PLAIN = re.compile(r"[^<]*")


class _GemmaReader(JsonReader):
    """JSON with strings between `mark`s, and keys without quotes."""

    quotes: ClassVar[Container[str]] = frozenset('<"')
    mark: ClassVar[str]

    def string(self, write: Write, quote: str) -> Reading[None]:
        if quote == '"':
            yield from super().string(write, quote)
            return
        yield from self._source.expect(self.mark)
        write('"')
        while not (yield from self._source.skip(self.mark)):
            write(escape(self._source.take_while(_PLAIN)))
            if not (yield from self._source.peek()):
                raise Cut
            if not (yield from self._source.which((self.mark,))):
                write(escape(self._source.take(1)))
        write('"')

    def key(self, write: Write) -> Reading[None]:
        if (yield from self._source.peek()) in self.quotes:
            yield from super().key(write)
            return
        name = (yield from self._source.run(_BARE)).strip()
        if not name:
            yield from self._source.refuse()
        yield from self._source.expect(":")
        write(f'"{escape(name)}": ')
        yield from self._source.run(SPACE)

    def _value(self, write: Write) -> Reading[None]:
        first = yield from self._source.peek()
        if first in self.containers or first in self.quotes or not first:
            yield from super()._value(write)
            return
        text = (yield from self._source.run(_BARE_VALUE)).strip()
        if not (yield from self._source.peek()):
            raise Cut
        if not (NUMBER.fullmatch(text) or text in CONSTANTS):
            self._repaired()
            text = f'"{escape(text)}"'
        write(CONSTANTS.get(text, text))


def _reader(mark: str, close: str) -> Reader:
    reader_class = type("Reader", (_GemmaReader,), {"mark": mark})

    def read(source: Source, attempt: CallAttempt) -> Reading[None]:
        yield from source.run(SPACE)
        yield from source.expect("call:")
        name = yield from source.run(_NAME)
        yield from source.run(SPACE)
        if (yield from source.peek()) != "{":
            yield from source.refuse()
        attempt.start(name)
        yield from reader_class(source, attempt.repaired, (close,)).value(attempt.write)
        attempt.end()
        yield from read_end(source, attempt, close)

    return read


def _family(name: str, mark: str, markers: tuple[str, str], knows: Callable[[str], bool]) -> Family:
    begin, end = markers
    form = CallForm(
        before=f"{begin}call:{{name}}{{",
        argument=ArgumentForm(before="{name}:", separator=",", values="quoted", quote=mark),
        after=f"}}{end}",
        separator="",
        trigger=begin,
    )
    return Family(name=name, openings=(Opening((begin,), _reader(mark, end)),), knows=knows, forms=(form,))


GEMMA4 = _family("gemma4", '<|"|>', ("<|tool_call>", "<tool_call|>"), template_has("<|tool_call>"))
FUNCTION_GEMMA = _family(
    "function_gemma",
    "<escape>",
    ("<start_function_call>", "<end_function_call>"),
    template_has("<start_function_call>"),
)
FAMILIES = (GEMMA4, FUNCTION_GEMMA)
