"""How a family writes a block of calls: the form that grammars enforce, and that shows calls to a model without tools
in its template."""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec

from service.generation import ToolCall
from service.tool_calling.json_reader import escape


class ArgumentForm(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments written one by one: `before` and `after` surround each value, `separator` stands between two.

    `{name}` is the argument's name. With `text` values strings have no quotes, as in the tagged formats.
    """

    before: str
    after: str = ""
    separator: str = ""
    values: Literal["json", "text"] = "text"

    def render(self, arguments: str) -> str:
        """`arguments` is the text of a JSON object."""
        return self.separator.join(
            f"{self.before.replace('{name}', name)}{self._value(value)}{self.after}"
            for name, value in json.loads(arguments).items()
        )

    def _value(self, value: object) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return untyped(text) if self.values == "text" else text


class CallForm(msgspec.Struct, frozen=True, kw_only=True):
    """A block is `begin`, calls with a `separator` between them, and `end`; a call is `before`, its arguments and
    `after`.

    `{name}` is the tool's name, `{index}` the call's number. With `separator` None a block holds one call. Without
    `argument` the arguments are one JSON object. `trigger` is a text that only a block begins with; empty if there is
    none.
    """

    before: str
    after: str = ""
    begin: str = ""
    separator: str | None = "\n"
    end: str = ""
    argument: ArgumentForm | None = None
    trigger: str = ""

    def render(self, calls: Sequence[ToolCall]) -> str:
        between = f"{self.end}{self.begin}" if self.separator is None else self.separator
        return f"{self.begin}{between.join(self._call(call, i) for i, call in enumerate(calls))}{self.end}"

    def _call(self, call: ToolCall, index: int) -> str:
        before = self.before.replace("{index}", str(index)).replace("{name}", escape(call.name))
        return f"{before}{self.argument.render(call.arguments) if self.argument else call.arguments}{self.after}"


def untyped(text: str) -> str:
    """A JSON value as the tagged formats write it: a string without quotes."""
    value = json.loads(text)
    return value if isinstance(value, str) else text
