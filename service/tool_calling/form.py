import json
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from service.generation import ToolCall
from service.tool_calling.json_reader import escape
from service.tool_calling.schema import json_type

_WORD = re.compile(r"\w+", re.ASCII)


class ArgumentForm(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` surround each value. `{name}` is the argument's name, `{type}` the entry of `types` for the
    value's JSON type, or that for "". `text` values are strings without quotes; `quoted` ones are JSON with `quote`
    around strings and bare keys."""

    before: str
    after: str = ""
    separator: str = ""
    values: Literal["json", "text", "quoted"] = "text"
    quote: str = ""
    types: dict[str, str] = {}

    def opening(self, name: str, json_type: str) -> str:
        return self.before.replace("{name}", name).replace("{type}", self.types.get(json_type, self.types.get("", "")))

    def render(self, arguments: str) -> str:
        """`arguments` is the text of a JSON object."""
        return self.separator.join(
            f"{self.opening(name, json_type(value))}{self._value(value)}{self.after.replace('{name}', name)}"
            for name, value in json.loads(arguments).items()
        )

    def _value(self, value: object) -> str:
        if self.values == "quoted":
            return quoted(value, self.quote)
        text = json.dumps(value, ensure_ascii=False)
        return untyped(text) if self.values == "text" else text


class CallForm(msgspec.Struct, frozen=True, kw_only=True):
    """A block is `begin`, calls with a `separator` between them, and `end`; a call is `before`, its arguments and
    `after`. `{name}` is the tool's name, `{index}` the call's number.

    With `separator` None a block holds one call. Without `argument` the arguments are one JSON object. Only blocks
    begin with `trigger`.
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
    value = json.loads(text)
    return value if isinstance(value, str) else text


def quoted_key(key: str, quote: str) -> str:
    return key if _WORD.fullmatch(key) else f"{quote}{key}{quote}"


def quoted(value: object, quote: str) -> str:
    """Returns JSON with `quote` around strings, and around keys that are no plain word."""
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case list():
            return f"[{','.join(quoted(item, quote) for item in value)}]"
        case dict():
            members = (f"{quoted_key(key, quote)}:{quoted(item, quote)}" for key, item in value.items())
            return f"{{{','.join(members)}}}"
        case _:
            return json.dumps(value)
