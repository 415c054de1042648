"""In XML-like formats a value is text, and its type comes from the schema. A closing tag ends the value only if another
argument or the call's end follows, and not inside a complete call in the value. Only strings stream."""

import json
import re

import msgspec

from service.tool_calling.calls import CallAttempt
from service.tool_calling.json_reader import Write, escape, repair
from service.tool_calling.schema import property_types
from service.tool_calling.source import SPACE, Cut, Reading, Source

_HEADER = re.compile(r"[^<\n]*")
_NO_BRACKET = re.compile(r"[^\]]*")
_KINDS = {"{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}


class Tags(msgspec.Struct, frozen=True, kw_only=True):
    call: str
    call_end: str
    argument: str
    argument_end: str
    own_line: bool = False  # line breaks next to a value's tags are markup
    block_end: str = ""  # follows the last call; some models write it instead of `call_end`
    header_end: str = ""  # ends the tags `call` and `argument`, unless they end with `>`
    cdata: bool = False  # a value may be an XML CDATA section

    @property
    def after_argument(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.argument, self.call_end, self.block_end)))


class TaggedCall:
    def __init__(self, source: Source, attempt: CallAttempt, tags: Tags, name: str) -> None:
        self._source = source
        self._attempt = attempt
        self._tags = tags
        self._tool = attempt.tools.get(attempt.offered(name))
        self._plain = re.compile(f"[^{re.escape(tags.argument_end[0])}\n]*")
        self._separator = ""
        attempt.start(name)
        attempt.write("{")

    def argument(self, name: str, types: frozenset[str] | None = None) -> Reading[None]:
        """`types` replace the schema's, for formats that write them."""
        self._attempt.write(f'{self._separator}"{escape(name)}": ')
        self._separator = ", "
        types = property_types(self._tool, name) if types is None else types
        if types == {"string"}:
            self._attempt.write('"')
            yield from self._value(lambda text: self._attempt.write(escape(text)))
            self._attempt.write('"')
        else:
            pieces: list[str] = []
            yield from self._value(pieces.append)
            self._attempt.write(typed("".join(pieces), types))

    def end(self) -> Reading[None]:
        """A text that ends without the closing tag ends the call, unless it was truncated."""
        yield from self._source.run(SPACE)
        if not (yield from self._source.skip(self._tags.call_end)):
            if not (yield from self._ends_without_tag()):
                yield from self._source.refuse()
            self._attempt.repaired()
        self._attempt.write("}")
        self._attempt.end()

    def _ends_without_tag(self) -> Reading[bool]:
        if not (yield from self._source.peek()):
            return not self._source.truncated
        return bool((yield from self._source.which(tuple(filter(None, (self._tags.block_end,))))))

    def _cdata(self, write: Write) -> Reading[None]:
        while not (yield from self._source.skip("]]>")):
            if not (yield from self._source.peek()):
                raise Cut
            write(self._source.take_while(_NO_BRACKET) or self._source.take(1))
        yield from self._source.run(SPACE)
        yield from self._source.expect(self._tags.argument_end)
        yield from self._source.run(SPACE)

    def _value(self, write: Write) -> Reading[None]:
        tags = self._tags
        if tags.cdata and (yield from self._source.skip("<![CDATA[")):
            yield from self._cdata(write)
            return
        out = _Value(write, own_line=tags.own_line)
        nested = 0  # number of other calls around this place, which are part of the value
        may_close = False  # one of them may close: the last text was an argument's end or its name
        if tags.own_line:
            yield from self._source.skip("\n")
        while True:
            plain = self._source.take_while(self._plain)
            out.write(plain)
            may_close = may_close and not plain
            if not (yield from self._source.peek()):
                raise Cut
            could_close, may_close = may_close, False
            tag = yield from self._source.which((tags.call, tags.call_end, tags.argument_end))
            text = self._source.take(len(tag) or 1)
            if tag == tags.argument_end:
                text += yield from self._source.run(SPACE)
                if nested == 0 and (yield from self._value_ends()):
                    return
                may_close = True
            elif tag == tags.call_end:
                nested -= could_close and nested > 0
                text += yield from self._source.run(SPACE)
            elif tag == tags.call:
                text += yield from self._source.run(_HEADER)
                if (yield from self._source.skip(tags.header_end)):
                    text += tags.header_end
                text += yield from self._source.run(SPACE)
                may_close = bool((yield from self._source.which((tags.argument, tags.call_end))))
                nested += may_close
            out.write(text)

    def _value_ends(self) -> Reading[bool]:
        if (yield from self._source.peek()):
            return bool((yield from self._source.which(self._tags.after_argument)))
        if self._source.truncated:
            raise Cut
        return True


class _Value:
    def __init__(self, write: Write, *, own_line: bool) -> None:
        self._write = write
        self._own_line = own_line
        self._held = ""

    def write(self, text: str) -> None:
        if not text:
            return
        text = self._held + text
        # The last line break may belong to the closing tag.
        self._held = "\n" if self._own_line and text.endswith("\n") else ""
        self._write(text.removesuffix(self._held))


def typed(text: str, types: frozenset[str]) -> str:
    """Returns JSON. If the value may be a string, only valid JSON counts as another type; if not, repaired JSON does
    too."""
    literal = text.strip()
    value = repair(literal)
    if value is None or (value[0] == '"' and "string" in types):
        return json.dumps(text, ensure_ascii=False)
    if "string" in types and (value != literal or not _kinds(value) & types):
        return json.dumps(text, ensure_ascii=False)
    return value


def _kinds(value: str) -> frozenset[str]:
    kind = _KINDS.get(value[0])
    if kind:
        return frozenset({kind})
    return frozenset({"integer", "number"} if value.lstrip("-").isdigit() else {"number"})
