"""What lies under a key: one `Completion` and when it was stored, guarded against versions and damage.

A record is a byte of version, the CRC-32 of the rest (4 bytes, big-endian), and msgpack of `Record`.
"""

import struct
import zlib

import msgspec

from service.generation import Completion

# To be raised whenever a record of before would be read wrongly: a field of `Completion` with another meaning.
RECORD_VERSION = 1

_HEADER = struct.Struct(">BI")


class Record(msgspec.Struct, frozen=True, array_like=True):
    """`stored_at` is in Unix seconds."""

    stored_at: float
    completion: Completion


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    payload = _ENCODER.encode(record)
    return _HEADER.pack(RECORD_VERSION, zlib.crc32(payload)) + payload


def decode_record(data: bytes) -> Record | None:
    """None for whatever is no whole record of this version."""
    if len(data) < _HEADER.size:
        return None
    version, checksum = _HEADER.unpack_from(data)
    payload = memoryview(data)[_HEADER.size :]
    if version != RECORD_VERSION or zlib.crc32(payload) != checksum:
        return None
    try:
        return _DECODER.decode(payload)
    except (msgspec.MsgspecError, ValueError):
        # ValueError holds UnicodeDecodeError, which msgspec lets through.
        return None
