from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import msgspec

from service.errors import ResponseGone

MAX_RESPONSES = 512
MAX_BYTES = 128 * 1024 * 1024


class KeptResponse(msgspec.Struct, frozen=True):
    """`items` are the response's whole input, `response` is its JSON."""

    items: tuple[msgspec.Raw, ...]
    response: msgspec.Raw

    @property
    def encoded(self) -> bytes:
        return bytes(self.response)

    @property
    def output(self) -> tuple[msgspec.Raw, ...]:
        return _RESPONSE.decode(self.encoded).output

    @property
    def size(self) -> int:
        return len(self.encoded) + sum(len(bytes(item)) for item in self.items)


class _Response(msgspec.Struct):
    output: tuple[msgspec.Raw, ...]


class _Item(msgspec.Struct):
    # They may be anything: some are never read, and others are refused later.
    type: Any = None
    id: Any = None


class _Previous(msgspec.Struct):
    previous_response_id: str | None = None


class _Names(_Previous):
    input: list[_Item] | str | None = None


_ENCODER = msgspec.json.Encoder()
_KEPT = msgspec.json.Decoder(KeptResponse)
_RESPONSE = msgspec.json.Decoder(_Response)
_ITEM = msgspec.json.Decoder(_Item)
_PREVIOUS = msgspec.json.Decoder(_Previous)
_NAMES = msgspec.json.Decoder(_Names)


def encode_kept(kept: KeptResponse) -> bytes:
    return _ENCODER.encode(kept)


def decode_kept(data: bytes) -> KeptResponse | None:
    """None if the data is damaged."""
    try:
        data.decode()  # msgspec copies a `Raw` without a look at its characters
        kept = _KEPT.decode(data)
        for item in kept.output:
            _ITEM.decode(item)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return kept


def named_responses(body: bytes) -> Iterator[str]:
    """Yields the ids of earlier responses that the request needs. A malformed request needs none."""
    try:
        names = _read_names(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return
    if names.previous_response_id:
        yield names.previous_response_id
    for item in names.input if isinstance(names.input, list) else ():
        if item.id and isinstance(item.id, str) and item.type in (None, "item_reference"):
            yield _response_of(item.id)


def _read_names(body: bytes) -> _Names:
    try:
        return _NAMES.decode(body)
    except msgspec.ValidationError:
        # The input is malformed, or a number in it is too large to be read.
        return _Names(_PREVIOUS.decode(body).previous_response_id)


def _response_of(item_id: str) -> str:
    """An item's id has the response's id and an index of two digits."""
    return f"resp_{item_id.partition('_')[2][:-2]}"


class KeptResponses:
    """Remembers finished responses of all callers in memory: the most recently used, within bounds. A response counts
    with the whole conversation before it."""

    def __init__(self, *, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self.size = 0
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._responses: OrderedDict[tuple[str, str], KeptResponse] = OrderedDict()
        self._new: dict[tuple[str, str], KeptResponse] = {}

    def __len__(self) -> int:
        return len(self._responses)

    def of(self, caller: str) -> "CallersResponses":
        return CallersResponses(self, caller)

    def add(self, caller: str, response_id: str, kept: KeptResponse) -> None:
        self.restore(caller, response_id, kept)
        self._new[caller, response_id] = kept

    def restore(self, caller: str, response_id: str, kept: KeptResponse) -> None:
        self.remove(caller, response_id)
        self._responses[caller, response_id] = kept
        self.size += kept.size
        while len(self._responses) > self._max_responses or self.size > self._max_bytes:
            self.remove(*next(iter(self._responses)))

    def take_new(self) -> dict[tuple[str, str], KeptResponse]:
        """Returns the responses by caller and id that were added since the last call."""
        taken, self._new = self._new, {}
        return taken

    def get(self, caller: str, response_id: str) -> KeptResponse | None:
        kept = self._responses.get((caller, response_id))
        if kept is not None:
            self._responses.move_to_end((caller, response_id))
        return kept

    def find(self, caller: str, item_id: str) -> msgspec.Raw | None:
        kept = self.get(caller, _response_of(item_id))
        if kept is None:
            return None
        return next((item for item in kept.output if _ITEM.decode(item).id == item_id), None)

    def remove(self, caller: str, response_id: str) -> bool:
        self._new.pop((caller, response_id), None)
        kept = self._responses.pop((caller, response_id), None)
        if kept is None:
            return False
        self.size -= kept.size
        return True


class CallersResponses:
    def __init__(self, kept: KeptResponses, caller: str) -> None:
        self._kept = kept
        self._caller = caller

    def add(self, response_id: str, items: tuple[msgspec.Raw, ...], encoded: bytes) -> None:
        # The items are copied: they are parts of a body, which would live as long as they do.
        copies = tuple(msgspec.Raw(bytes(item)) for item in items)
        self._kept.add(self._caller, response_id, KeptResponse(copies, msgspec.Raw(encoded)))

    def get(self, response_id: str) -> KeptResponse:
        """Raises `ResponseGone`."""
        kept = self._kept.get(self._caller, response_id)
        if kept is None:
            raise ResponseGone(response_id)
        return kept

    def conversation(self, response_id: str) -> tuple[msgspec.Raw, ...] | None:
        kept = self._kept.get(self._caller, response_id)
        return None if kept is None else kept.items + kept.output

    def item(self, item_id: str) -> msgspec.Raw | None:
        return self._kept.find(self._caller, item_id)
