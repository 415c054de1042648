"""MiniMax M3: `<invoke name="f">` with an element for each argument, and elements in it for objects and lists.

A token of its own stands before each tag, so values need no quotes.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, block_of, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.json_reader import MAX_DEPTH, escape
from service.tool_calling.schema import resolved, value_types
from service.tool_calling.source import SPACE, Cut, Malformed, Reading, Source
from service.tool_calling.tagged import typed

MARK = "]<]minimax[>["
OPEN, CLOSE = f"{MARK}<tool_call>", f"{MARK}</tool_call>"
CALL, CALL_END = f"{MARK}<invoke", f"{MARK}</invoke>"
_TAG = re.compile(r"[^<>\n]*")
_TEXT = re.compile(r"[^\]]*")
_NAME = re.compile(r'name\s*=\s*["\']?([^"\'\s]+)')


def _read_call(source: Source, attempt: CallAttempt) -> Reading[None]:
    header = yield from source.run(_TAG)
    yield from source.expect(">")
    name = _NAME.search(header)
    if name is None:
        raise Malformed
    tool = attempt.tools.get(attempt.offered(name[1]))
    arguments = _Elements(source, attempt, tool.parameters if tool else {})
    attempt.start(name[1])
    attempt.write("{")
    separator = ""
    while True:
        yield from source.run(SPACE)
        if (yield from source.skip(CALL_END)):
            break
        argument = yield from arguments.tag()
        attempt.write(f'{separator}"{escape(argument)}": ')
        separator = ", "
        yield from arguments.value(argument)
    attempt.write("}")
    attempt.end()


class _Elements:
    def __init__(self, source: Source, attempt: CallAttempt, root: Mapping[str, Any]) -> None:
        self._source = source
        self._attempt = attempt
        self._root = root

    def tag(self) -> Reading[str]:
        yield from self._source.expect(f"{MARK}<")
        name = yield from self._source.run(_TAG)
        yield from self._source.expect(">")
        if not name or name.startswith("/"):
            raise Malformed
        return name

    def value(self, argument: str) -> Reading[None]:
        """Strings stream; other values are written whole."""
        schema = (self._root.get("properties") or {}).get(argument)
        if value_types(schema, self._root, 0) != {"string"}:
            self._attempt.write((yield from self._json(argument, schema, 0)))
            return
        self._attempt.write('"')
        while not (yield from self._source.skip(f"{MARK}</{argument}>")):
            self._attempt.write(escape((yield from self._text())))
        self._attempt.write('"')

    def _text(self) -> Reading[str]:
        text = self._source.take_while(_TEXT)
        if not text and not (yield from self._source.peek()):
            raise Cut
        return text or self._source.take(1)

    def _json(self, name: str, schema: Any, depth: int) -> Reading[str]:
        """An element holds text or more elements."""
        if depth > MAX_DEPTH:
            raise Malformed
        schema = resolved(schema, self._root)
        schema = schema if isinstance(schema, Mapping) else {}
        pieces: list[str] = []
        while not (yield from self._source.which((MARK,))):
            pieces.append((yield from self._text()))
        if (yield from self._source.skip(f"{MARK}</{name}>")):
            return typed("".join(pieces), value_types(schema, self._root, 0))
        if "".join(pieces).strip():
            raise Malformed
        members: list[tuple[str, str]] = []
        while not (yield from self._source.skip(f"{MARK}</{name}>")):
            child = yield from self.tag()
            inner = schema.get("items") if child == "item" else (schema.get("properties") or {}).get(child)
            members.append((child, (yield from self._json(child, inner, depth + 1))))
            yield from self._source.run(SPACE)
        if all(child == "item" for child, _ in members) and "array" in value_types(schema, self._root, 0):
            return f"[{', '.join(value for _, value in members)}]"
        return f"{{{', '.join(f'{json.dumps(child, ensure_ascii=False)}: {value}' for child, value in members)}}}"


# Nested values are written as JSON, which the reader accepts too.
FORM = CallForm(
    begin=f"{OPEN}\n",
    before=f'{CALL} name="{{name}}">',
    argument=ArgumentForm(before=f"{MARK}<{{name}}>", after=f"{MARK}</{{name}}>"),
    after=f"{CALL_END}\n",
    separator="",
    end=CLOSE,
    trigger=OPEN,
)
read = block_of(_read_call, call=CALL, end=CLOSE)
FAMILY = Family(
    name="minimax_m3",
    openings=(Opening((OPEN,), read), Opening((CALL,), read, consumed=False)),
    knows=template_has(MARK),
    forms=(FORM,),
)
