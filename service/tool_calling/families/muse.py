"""Muse: the blocks of `invoke.py` in turns with a recipient: `self` is reasoning, `user` the answer, a tool a call.

The prompt ends with the turn's role, so an answer begins with its recipient.
"""

import re

import msgspec

from service.tool_calling.calls import CallAttempt
from service.tool_calling.families import invoke
from service.tool_calling.family import Family, Opening, pass_thought, skip_marker
from service.tool_calling.source import Malformed, Reading, Source

START, ROLE, MESSAGE, ENDS = "<|start|>", "assistant", "<|message|>", ("<|eom|>", "<|eot|>")
_RECIPIENT = re.compile(r"[^<\n]*")
_read_thought = pass_thought(*ENDS, before=(START,))


def read_turn(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.skip(ROLE)
    recipient = yield from source.run(_RECIPIENT)
    yield from source.expect(MESSAGE)
    attempt.absorb()
    if recipient.strip() == "to=self":
        yield from _read_thought(source, attempt)


def read_beginning(source: Source, attempt: CallAttempt) -> Reading[None]:
    if not (yield from source.which((" to=", MESSAGE))):
        raise Malformed
    yield from read_turn(source, attempt)


FAMILY: Family = msgspec.structs.replace(
    invoke.MUSE,
    openings=(
        *invoke.MUSE.openings,
        Opening((START,), read_turn),
        Opening((), read_beginning, "start", consumed=False),
        Opening(ENDS, skip_marker),
    ),
    frames=True,
    answer=f" to=user{MESSAGE}",
    thought=(f" to=self{MESSAGE}", f"{ENDS[0]}{START}{ROLE}"),
)
