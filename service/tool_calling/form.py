"""How a family writes calls: for grammars, and for models without tools in their template."""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec

from service.generation import ToolCall
from service.tool_calling.json_reader import escape


class ArgumentForm(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` surround each value; `{name}` is the argument's name. `text` values are strings without
    quotes."""

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
    `after`. `{name}` is the tool's name, `{index}` the call's number.

    With `separator` None a block holds one call. Without `argument` the arguments are one JSON object. Only a block
    begins with `trigger`, if there is one.
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
