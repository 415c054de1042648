"""The response-cache key: requests that are answered alike have the same, all others have another."""

import hashlib

import msgspec

from service.generation import GenerationRequest

# To be raised whenever the same request to the same model would be answered otherwise than before: when normalising,
# prompt building, sampling or parsing change in what they produce. Everything stored until then is a miss from then on.
KEY_VERSION = 1

# Sorts the keys of dictionaries (JSON Schemas, template arguments), and nothing else: order counts everywhere else.
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


def request_key(fingerprint: str, request: GenerationRequest) -> str:
    """SHA-256, in hexadecimal, over all of a normalised request and the model's fingerprint.

    The whole Struct is encoded, so that a field which is added to `GenerationRequest` is in the key from the start.
    """
    return hashlib.sha256(_ENCODER.encode((KEY_VERSION, fingerprint, request))).hexdigest()
