"""How a family writes a block of calls, piece by piece: what constrained decoding holds a model to."""

from typing import Literal

import msgspec


class ArgumentForm(msgspec.Struct, frozen=True, kw_only=True):
    """For families that write arguments one by one: what stands `before` and `after` each value, and between two.

    `{name}` is the argument's. `text` values are written without quotes, as the tagged formats have them.
    """

    before: str
    after: str = ""
    separator: str = ""
    values: Literal["json", "text"] = "text"


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
