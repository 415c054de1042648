from collections import OrderedDict

import msgspec

from service.errors import ResponseGone

MAX_RESPONSES = 512
MAX_BYTES = 128 * 1024 * 1024


class KeptResponse(msgspec.Struct, frozen=True):
    """`items` are the response's whole input, `encoded` is its JSON."""

    items: tuple[msgspec.Raw, ...]
    encoded: bytes

    @property
    def output(self) -> tuple[msgspec.Raw, ...]:
        return _RESPONSE.decode(self.encoded).output

    @property
    def size(self) -> int:
        return len(self.encoded) + sum(len(bytes(item)) for item in self.items)


class _Response(msgspec.Struct):
    output: tuple[msgspec.Raw, ...]


class _Identified(msgspec.Struct):
    id: str = ""


_RESPONSE = msgspec.json.Decoder(_Response)
_ITEM = msgspec.json.Decoder(_Identified)


class KeptResponses:
    """Remembers finished responses of all callers in memory: the most recently used, within bounds. A response counts
    with the whole conversation before it."""

    def __init__(self, *, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self.size = 0
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._responses: OrderedDict[tuple[str, str], KeptResponse] = OrderedDict()
        self._places: dict[tuple[str, str], str] = {}  # the response that wrote each item

    def __len__(self) -> int:
        return len(self._responses)

    def of(self, caller: str) -> "CallersResponses":
        return CallersResponses(self, caller)

    def add(self, caller: str, response_id: str, kept: KeptResponse) -> None:
        self.remove(caller, response_id)
        self._responses[caller, response_id] = kept
        self.size += kept.size
        for item in kept.output:
            self._places[caller, _ITEM.decode(item).id] = response_id
        while len(self._responses) > self._max_responses or self.size > self._max_bytes:
            self.remove(*next(iter(self._responses)))

    def get(self, caller: str, response_id: str) -> KeptResponse | None:
        kept = self._responses.get((caller, response_id))
        if kept is not None:
            self._responses.move_to_end((caller, response_id))
        return kept

    def find(self, caller: str, item_id: str) -> msgspec.Raw | None:
        kept = self.get(caller, self._places.get((caller, item_id), ""))
        if kept is None:
            return None
        return next((item for item in kept.output if _ITEM.decode(item).id == item_id), None)

    def remove(self, caller: str, response_id: str) -> bool:
        kept = self._responses.pop((caller, response_id), None)
        if kept is None:
            return False
        self.size -= kept.size
        for item in kept.output:
            self._places.pop((caller, _ITEM.decode(item).id), None)
        return True


class CallersResponses:
    def __init__(self, kept: KeptResponses, caller: str) -> None:
        self._kept = kept
        self._caller = caller

    def add(self, response_id: str, items: tuple[msgspec.Raw, ...], encoded: bytes) -> None:
        # The items are copied: they are parts of a body, which would live as long as they do.
        copies = tuple(msgspec.Raw(bytes(item)) for item in items)
        self._kept.add(self._caller, response_id, KeptResponse(copies, encoded))

    def get(self, response_id: str) -> KeptResponse:
        """Raises `ResponseGone`."""
        kept = self._kept.get(self._caller, response_id)
        if kept is None:
            raise ResponseGone(response_id)
        return kept

    def remove(self, response_id: str) -> None:
        """Raises `ResponseGone`."""
        if not self._kept.remove(self._caller, response_id):
            raise ResponseGone(response_id)

    def conversation(self, response_id: str) -> tuple[msgspec.Raw, ...] | None:
        kept = self._kept.get(self._caller, response_id)
        return None if kept is None else kept.items + kept.output

    def item(self, item_id: str) -> msgspec.Raw | None:
        return self._kept.find(self._caller, item_id)
