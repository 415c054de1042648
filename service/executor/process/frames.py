"""Encodes messages, without I/O: four bytes of length, then one msgpack array of messages.

A frame with integers beyond msgpack's 64 bits, which a JSON Schema may hold, is JSON instead: only JSON begins with
"[".
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from service.executor.process.call_messages import ToEngine, ToServer

M = TypeVar("M")

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 1024**2


class BadFrame(Exception):
    """No later bytes can be read either."""


class FrameTooLarge(Exception): ...


def _encode_path(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError


def _decode_path(kind: type, value: Any) -> Any:
    return kind(value)


_MSGPACK = msgspec.msgpack.Encoder(enc_hook=_encode_path)
_JSON = msgspec.json.Encoder(enc_hook=_encode_path)


def encode_frame(messages: Sequence[ToEngine] | Sequence[ToServer]) -> bytes:
    """Raises `FrameTooLarge`; also `RecursionError` and `UnicodeError`, for values that no JSON text can give."""
    try:
        body = _MSGPACK.encode(messages)
    except OverflowError:
        body = _JSON.encode(messages)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"{len(body)} bytes, at most {MAX_FRAME_BYTES} are sent at once")
    return HEADER.pack(len(body)) + body


class FrameReader(Generic[M]):
    """`kind` is `list[...]` of the expected messages."""

    def __init__(self, kind: type[list[M]]) -> None:
        self._received = bytearray()
        self._msgpack = msgspec.msgpack.Decoder(kind, dec_hook=_decode_path)
        self._json = msgspec.json.Decoder(kind, dec_hook=_decode_path)

    def feed(self, data: bytes) -> list[M]:
        """Raises `BadFrame`."""
        self._received += data
        messages: list[M] = []
        begin = 0
        while len(self._received) - begin >= HEADER.size:
            (size,) = HEADER.unpack_from(self._received, begin)
            if size > MAX_FRAME_BYTES:
                raise BadFrame(f"expected a frame of at most {MAX_FRAME_BYTES} bytes, found one of {size}")
            end = begin + HEADER.size + size
            if len(self._received) < end:
                break
            messages += self._decode(self._received[begin + HEADER.size : end])
            begin = end
        del self._received[:begin]
        return messages

    def _decode(self, body: bytearray) -> list[M]:
        decoder = self._json if body.startswith(b"[") else self._msgpack
        try:
            return decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise BadFrame(str(exc)) from exc
