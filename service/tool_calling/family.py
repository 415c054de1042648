"""What a format family is: how its calls open, how they are read, and how they are written."""

from collections.abc import Callable
from typing import Literal

import msgspec

from service.tool_calling.calls import Calls
from service.tool_calling.form import CallForm
from service.tool_calling.source import Reading, Source

Reader = Callable[[Source, Calls], Reading[None]]
Place = Literal["anywhere", "line", "fence"]


class Opening(msgspec.Struct, frozen=True):
    """`markers` begin what `read` reads: the source stands after the marker, except where `consumed` is false.

    In `place` `anywhere` the markers are the family's own and mean nothing else. Openings at the beginning of a line,
    or of a fenced block, look like ordinary text: their calls count only where no text stands before them, or none
    after. `read` raises `NotACall` when it finds something else.
    """

    markers: tuple[str, ...]
    read: Reader
    place: Place = "anywhere"
    consumed: bool = True


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """`knows` tells from the text of a chat template whether its model was trained on this format. `forms`
    say how it writes them, one for each generation of models.

    With `frames` the markup is around all of an answer, not only around calls: `answer` begins what is no call, and
    `thought` is around reasoning.
    """

    name: str
    openings: tuple[Opening, ...]
    knows: Callable[[str], bool]
    forms: tuple[CallForm, ...]
    frames: bool = False
    answer: str = ""
    thought: tuple[str, str] | None = None
