"""What rank 0 tells the others: the calls of `Engine` that change it, and what they need to begin alike.

JSON, because requests hold numbers of any size. What cannot travel, a compiled grammar, is made anew on each rank.
"""

import zlib
from collections.abc import Sequence as Sequential

import msgspec

from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import Token


class Terms(msgspec.Struct, frozen=True, kw_only=True, tag="terms"):
    """The first of all. `versions` and `fingerprint` must be every rank's own, or the ranks compute different things;
    the settings are rank 0's for everybody, whatever another machine's files say."""

    versions: dict[str, str]
    fingerprint: str
    settings: dict[str, int | bool | str | None]


class Insert(msgspec.Struct, frozen=True, tag="insert"):
    """`constrained`: its prompt has a grammar, which follows from the request."""

    sequence: Sequence
    constrained: bool = False


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    sequence: int


class Step(msgspec.Struct, frozen=True, tag="step"):
    """`history` is the checksum of all that rank 0's engine has answered so far."""

    history: int


class Weigh(msgspec.Struct, frozen=True, tag="weigh"):
    """All ranks say how much memory they miss for sequences of these `(prompt, answer)` lengths, in tokens."""

    sizes: tuple[tuple[int, int], ...]


Call = Terms | Insert | Remove | Step | Weigh

_DECODER = msgspec.json.Decoder(Call)


def encode(call: Call) -> bytes:
    return msgspec.json.encode(call)


def decode(message: bytes) -> Call:
    """Raises `msgspec.DecodeError`."""
    call: Call = _DECODER.decode(message)
    return call


def insert(sequence: Sequence) -> Insert:
    if sequence.prompt.grammar is None:
        return Insert(sequence)
    prompt = msgspec.structs.replace(sequence.prompt, grammar=None)
    return Insert(msgspec.structs.replace(sequence, prompt=prompt), constrained=True)


class History:
    """A checksum of what an engine has answered, in order. Where those of two ranks differ, so do their models' states,
    and the next collective would mix what does not belong together, or never end."""

    def __init__(self) -> None:
        self.checksum = 0

    def __repr__(self) -> str:
        return f"<History {self.checksum:08x}>"

    def inserted(self, sequence: int, accepted: bool) -> None:
        self._add(["insert", sequence, accepted])

    def removed(self, sequence: int, use: object) -> None:
        self._add(["remove", sequence, use])

    def stepped(self, tokens: Sequential[Token], prompt_tokens_read: int) -> None:
        answered = [[token.sequence, token.id, token.end, token.error, token.prompt_use] for token in tokens]
        self._add(["step", prompt_tokens_read, answered])

    def _add(self, fact: list[object]) -> None:
        self.checksum = zlib.crc32(msgspec.json.encode(fact), self.checksum)
