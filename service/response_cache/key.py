"""The response-cache key: requests that are answered alike have the same, all others have another."""

import hashlib
from collections import OrderedDict

import msgspec

from service.generation import GenerationRequest, Tool

# To be raised whenever the same request to the same model would be answered otherwise than before: when normalising,
# prompt building, sampling or parsing change in what they produce. Everything stored until then is a miss from then on.
KEY_VERSION = 1

# An agent sends the same tools with every request, 64 KB of them, and dialects give equal ones as one object.
REMEMBERED_TOOL_SETS = 8

# Sort the keys of dictionaries (JSON Schemas, template arguments), and nothing else: order counts everywhere else.
# msgpack copies text as it is, and so is many times faster; its integers have 64 bits, those of a schema may have more.
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_LONG_INTEGERS = msgspec.json.Encoder(order="deterministic")


class RequestKeys:
    """Makes the keys of normalised requests, and remembers the digests of the last sets of tools that it saw, by
    identity: to hash them anew would cost most of a hit's time. Tools are not changed once they are made."""

    def __init__(self) -> None:
        self._digests: OrderedDict[int, tuple[tuple[Tool, ...], bytes]] = OrderedDict()

    def key(self, fingerprint: str, request: GenerationRequest) -> str:
        """SHA-256, in hexadecimal, over all of a request and the model's fingerprint.

        The whole Struct is encoded, so that a field which is added to `GenerationRequest` is in the key from the start.
        How fast the server decodes is not in it: speculative decoding draws what the model would have drawn.
        """
        digest = b""
        if request.tools:
            digest = self._digest(request.tools)
            request = msgspec.structs.replace(request, tools=())
        return hashlib.sha256(_encode((KEY_VERSION, fingerprint, digest, request))).hexdigest()

    def _digest(self, tools: tuple[Tool, ...]) -> bytes:
        # The tools are kept beside their digest: while they live, nothing else has their identity.
        remembered = self._digests.get(id(tools))
        if remembered is not None:
            self._digests.move_to_end(id(tools))
            return remembered[1]
        digest = hashlib.sha256(_encode(tools)).digest()
        self._digests[id(tools)] = tools, digest
        if len(self._digests) > REMEMBERED_TOOL_SETS:
            self._digests.popitem(last=False)
        return digest


def _encode(value: tuple[object, ...]) -> bytes:
    """The first byte tells the two encodings apart: an array begins with "[" in JSON alone."""
    try:
        return _ENCODER.encode(value)
    except OverflowError:
        return _LONG_INTEGERS.encode(value)
