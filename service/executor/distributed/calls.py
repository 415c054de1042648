# Calls travel as JSON, because requests hold numbers of any size.

import zlib
from collections.abc import Iterable

import msgspec

from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import Token


class Terms(msgspec.Struct, frozen=True, kw_only=True, tag="terms"):
    """`versions` and `fingerprint` must equal each rank's own; `settings` override theirs."""

    versions: dict[str, str]
    fingerprint: str
    settings: dict[str, int | bool | str | None]


class Insert(msgspec.Struct, frozen=True, tag="insert"):
    """`constrained`: each rank compiles the grammar from the request."""

    sequence: Sequence
    constrained: bool = False


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    sequence: int


class Step(msgspec.Struct, frozen=True, tag="step"):
    """`history` is the checksum of all results of rank 0's engine."""

    history: int


class Weigh(msgspec.Struct, frozen=True, tag="weigh"):
    """Asks for the shortfall of sequences of these lengths."""

    lengths: list[int]


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Asks for the longest sequence that fits alone."""


class Reserve(msgspec.Struct, frozen=True, tag="reserve"):
    """`lengths` are by sequence."""

    lengths: dict[int, int]


Call = Terms | Insert | Remove | Step | Weigh | Measure | Reserve

_DECODER = msgspec.json.Decoder(Call)


def encode(call: Call) -> bytes:
    return msgspec.json.encode(call)


def decode(message: bytes) -> Call:
    call: Call = _DECODER.decode(message)
    return call


def insert(sequence: Sequence) -> Insert:
    if sequence.prompt.grammar is None:
        return Insert(sequence)
    prompt = msgspec.structs.replace(sequence.prompt, grammar=None)
    return Insert(msgspec.structs.replace(sequence, prompt=prompt), constrained=True)


class History:
    """A checksum of an engine's results. If ranks differed, the next collective would mix unrelated values or hang."""

    def __init__(self) -> None:
        self.checksum = 0

    def __repr__(self) -> str:
        return f"<History {self.checksum:08x}>"

    def inserted(self, sequence: int, accepted: bool) -> None:
        self._add(["insert", sequence, accepted])

    def removed(self, sequence: int, use: object) -> None:
        self._add(["remove", sequence, use])

    def stepped(self, tokens: Iterable[Token], prompt_tokens_read: int) -> None:
        answered = [[token.sequence, token.id, token.end, token.error, token.prompt_use] for token in tokens]
        self._add(["step", prompt_tokens_read, answered])

    def _add(self, fact: list[object]) -> None:
        self.checksum = zlib.crc32(msgspec.json.encode(fact), self.checksum)
