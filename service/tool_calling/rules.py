import json
from collections.abc import Callable, Sequence
from typing import Any

from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from service.tool_calling.text_values import ANYTHING, escape

TEXT = f"/{ANYTHING}/"
# Splits markup into text and the ids of special tokens, which no text can produce.
Spell = Callable[[str], Sequence[str | int]]

# An indentation may follow a line break. With more white space a small model may never end.
_JSON = {"whitespace_pattern": r"[ \t]?|\n[ \t]{0,40}"}
_JSON_ESCAPES = {"json_allow_general_unicode_escapes": True}


class Rules:
    """Rules of a grammar in llguidance's dialect of Lark. Equal rules share one name."""

    def __init__(self, spell: Spell) -> None:
        self._spell = spell
        self._names: dict[str, str] = {}

    def __str__(self) -> str:
        return "".join(f"{name}{body}\n" for body, name in self._names.items())

    def rule(self, body: str, attribute: str = "") -> str:
        return self._add("r", f"{attribute}: {body}")

    def define(self, name: str, body: str) -> str:
        """Other rules may refer to `name` before its definition."""
        self._names.setdefault(f": {body}", name)
        return name

    def terminal(self, body: str) -> str:
        return self._add("T", f": {body}")

    def literal(self, text: str, name: str = "") -> str:
        """Writes `name` for `{name}` and any number for `{index}`."""
        pieces = text.replace("{name}", name).split("{index}")
        return " /[0-9]{1,3}/ ".join(" ".join(map(_written, self._spell(piece))) for piece in pieces)

    def until(self, end: str, text: str = TEXT) -> str:
        """Returns the terminal `text` up to and including the first `end`."""
        first, *rest = self._spell(end)
        written = " ".join(map(_written, rest))
        if isinstance(first, int):
            return f"{self.terminal(text)} {_written(first)} {written}"
        ended = f"{text} /{escape(first)}/"
        if text != TEXT:
            ended += f" & ~/{ANYTHING}{escape(first)}(?s:.+)/"  # the first end, even if `text` matches more
        return f"{self.rule(self.terminal(ended), '[lazy]')} {written}"

    def without(self, marker: str) -> str:
        first = self._spell(marker)[0]
        if isinstance(first, int):
            return self.terminal(TEXT)
        return self.terminal(f"/{ANYTHING}/ & ~/{ANYTHING}{escape(first)}{ANYTHING}/")

    def _add(self, prefix: str, body: str) -> str:
        return self._names.setdefault(body, f"{prefix}{len(self._names)}")


def _written(piece: str | int) -> str:
    return f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece, ensure_ascii=False)


def lark_rule(grammar: str) -> str:
    """`grammar` is Lark or llama.cpp's GBNF. Raises ValueError for others."""
    try:
        lark = any_to_lark(grammar)
    except (GbnfToLarkError, RecursionError) as exc:
        raise ValueError(f"the grammar is neither Lark nor GBNF: {exc}") from exc
    return f"%lark {{\n{lark}\n}}"


def json_rule(schema: Any, *, lenient: bool = False, escapes: bool = True) -> str:
    options = {**_JSON, **(_JSON_ESCAPES if escapes else {}), "lenient": lenient}
    return "%json " + json.dumps({**schema, "x-guidance": options})
