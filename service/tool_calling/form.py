"""How a family writes a block of calls, piece by piece: what constrained decoding holds a model to, and how calls are
shown to a model whose template knows none."""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec

from service.generation import ToolCall
from service.tool_calling.json_reader import escape


class ArgumentForm(msgspec.Struct, frozen=True, kw_only=True):
    """For families that write arguments one by one: what stands `before` and `after` each value, and between two.

    `{name}` is the argument's. `text` values are written without quotes, as the tagged formats have them.
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
    """A block is `begin`, then calls with a `separator` between them, then `end`; a call is `before`, its arguments,
    `after`. In these texts `{name}` is the tool's name, `{index}` a number; `separator` None means one call a block.

    Without `argument` the arguments are one JSON object. `trigger` is the text that nothing but a block begins with,
    where there is one: in running text it tells that a block begins.
    """

    before: str
    after: str = ""
    begin: str = ""
    separator: str | None = "\n"
    end: str = ""
    argument: ArgumentForm | None = None
    trigger: str = ""

    def render(self, calls: Sequence[ToolCall]) -> str:
        """The calls as a model that was trained on this form writes them."""
        between = f"{self.end}{self.begin}" if self.separator is None else self.separator
        return f"{self.begin}{between.join(self._call(call, i) for i, call in enumerate(calls))}{self.end}"

    def _call(self, call: ToolCall, index: int) -> str:
        before = self.before.replace("{index}", str(index)).replace("{name}", escape(call.name))
        return f"{before}{self.argument.render(call.arguments) if self.argument else call.arguments}{self.after}"


def untyped(text: str) -> str:
    """A JSON value as the tagged formats write it: a string as its text."""
    value = json.loads(text)
    return value if isinstance(value, str) else text
