import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from service.tool_calling.calls import CallAttempt
from service.tool_calling.form import CallForm
from service.tool_calling.source import SPACE, Reading, Source

Reader = Callable[[Source, CallAttempt], Reading[None]]
Place = Literal["anywhere", "start", "line", "fence"]


class Opening(msgspec.Struct, frozen=True):
    """`read` starts after the marker if `consumed`, else at it, and raises `NotACall` for other text.

    At the place `start` a reader is tried at the beginning of the answer, without a marker. At `line` and `fence`
    a marker may be ordinary text: a call counts only if the answer begins or ends with it. At `anywhere` a marker
    always means a call.
    """

    markers: tuple[str, ...]
    read: Reader
    place: Place = "anywhere"
    consumed: bool = True


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """`knows` decides from a chat template whether its model was trained on this format. `forms` has one form per
    generation of models. With `frames` markup surrounds the whole answer: `answer` begins text, `thought` surrounds
    reasoning."""

    name: str
    openings: tuple[Opening, ...]
    knows: Callable[[str], bool]
    forms: tuple[CallForm, ...]
    frames: bool = False
    answer: str = ""
    thought: tuple[str, str] | None = None


def template_has(*markers: str, but: Sequence[str] = ()) -> Callable[[str], bool]:
    """Returns a `Family.knows`: the template has all of `markers` and none of `but`."""
    return lambda template: all(mark in template for mark in markers) and not any(mark in template for mark in but)


def block_of(read_call: Reader, *, call: str, end: str) -> Reader:
    """Returns a reader of calls in a row, each behind the marker `call`. `end` may be missing."""

    def read(source: Source, attempt: CallAttempt) -> Reading[None]:
        yield from source.run(SPACE)
        while True:
            attempt.begin()
            yield from source.expect(call)
            yield from read_call(source, attempt)
            yield from source.run(SPACE)
            if not (yield from source.which((call,))):
                break
        if (yield from source.skip(end)):
            attempt.absorb()

    return read


def skip_marker(_: Source, attempt: CallAttempt) -> Reading[None]:
    attempt.absorb()
    yield from ()


def pass_thought(*ends: str, before: tuple[str, ...] = ()) -> Reader:
    """Reads reasoning up to one of the markers `ends`, or to the end. Markers of `before` end it too, but are read
    again: they begin a call or an answer."""
    first = "".join({marker[0] for marker in (*ends, *before)})
    plain = re.compile(f"[^{re.escape(first)}]*")

    def read(source: Source, attempt: CallAttempt) -> Reading[None]:
        attempt.absorb()
        while (yield from source.peek()):
            attempt.reasoning(source.take_while(plain))
            if (yield from source.skip(*ends)) or (yield from source.which(before)):
                attempt.absorb()
                return
            attempt.reasoning(source.take(1))
            attempt.absorb()

    return read
