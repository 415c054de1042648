"""A stored answer: a version byte, the CRC-32 of the rest (big-endian), and msgpack of `AnswerRecord`."""

import struct
import zlib
from typing import Annotated

import msgspec

from service.generation import Completion

# Raise it whenever a field of `AnswerRecord` or `Completion` changes its meaning.
RECORD_VERSION = 2

# Up to the year 9999, the last that can be shown.
UnixSeconds = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]

_HEADER = struct.Struct(">BI")


class AnswerRecord(msgspec.Struct, frozen=True, array_like=True):
    # A damaged index in a database may lead to an intact row of another key.
    key: str
    stored_at: UnixSeconds
    completion: Completion


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnswerRecord)


def encode_record(record: AnswerRecord) -> bytes:
    payload = _ENCODER.encode(record)
    return _HEADER.pack(RECORD_VERSION, zlib.crc32(payload)) + payload


def decode_record(data: bytes, key: str) -> AnswerRecord | None:
    """None unless the data is an intact record of this version and key."""
    if len(data) < _HEADER.size:
        return None
    version, checksum = _HEADER.unpack_from(data)
    payload = memoryview(data)[_HEADER.size :]
    if version != RECORD_VERSION or zlib.crc32(payload) != checksum:
        return None
    try:
        record = _DECODER.decode(payload)
    except (msgspec.MsgspecError, ValueError):
        # msgpack raises UnicodeDecodeError, a ValueError, for invalid text.
        return None
    return record if record.key == key else None
