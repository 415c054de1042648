"""One file per span, named by a digest of its key: MAGIC, SHA-256 of the header, its length (4 bytes, little endian),
header (JSON), arrays. Nothing in it is executed. Functions raise OSError if the disk fails."""

import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from service.storage import FILE_MODE

MAGIC = b"anyclaude prefix 1\n"
SUFFIX = ".prefix"
DRAFT_SUFFIX = ".draft"
DIGEST_BYTES = 32
LENGTH_BYTES = 4
MAX_HEADER_BYTES = 64 * 1024**2

# Bytes of one number, by MLX's type names.
ITEM_BYTES = {
    "bool_": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "float16": 2, "bfloat16": 2,
    "uint32": 4, "int32": 4, "float32": 4, "uint64": 8, "int64": 8, "float64": 8, "complex64": 8,
}  # fmt: skip


class DamagedFile(Exception): ...


class Buffer(msgspec.Struct, frozen=True):
    """Any thread may read `data`. `dtype` is MLX's name."""

    data: memoryview
    dtype: str
    shape: tuple[int, ...]


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class SpanKey(msgspec.Struct, frozen=True, kw_only=True):
    """`model` identifies everything that the state depends on except tokens. `parent` is the file name of the span
    before, or ""."""

    model: str
    caller: str
    parent: str
    start: int
    tokens: tuple[int, ...]

    @property
    def name(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:40] + SUFFIX


class SpanHeader(msgspec.Struct, frozen=True, kw_only=True):
    """`layouts` hold an index for each array. `checksum` is the CRC-32 of all array bytes."""

    key: SpanKey
    layouts: tuple[Any, ...]
    arrays: tuple[ArrayHeader, ...]
    checksum: int

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


def write_span(folder: Path, key: SpanKey, layouts: tuple[Any, ...], buffers: list[Buffer]) -> int:
    """Writes the whole file or none, readable by its owner only. Returns its size in bytes."""
    checksum = 0
    for buffer in buffers:
        checksum = zlib.crc32(buffer.data, checksum)
    arrays = tuple(ArrayHeader(buffer.dtype, buffer.shape) for buffer in buffers)
    header = msgspec.json.encode(SpanHeader(key=key, layouts=layouts, arrays=arrays, checksum=checksum))
    path = folder / key.name
    draft = path.with_suffix(f".{os.getpid()}{DRAFT_SUFFIX}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as file:
            file.write(MAGIC + hashlib.sha256(header).digest() + len(header).to_bytes(LENGTH_BYTES, "little") + header)
            for buffer in buffers:
                file.write(buffer.data)
            size = file.tell()
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return size


def read_header(path: Path) -> SpanHeader:
    """Leaves the arrays unread. Raises `DamagedFile`."""
    with path.open("rb") as file:
        return _read_header(file, path)


def read_span(path: Path) -> tuple[SpanHeader, list[Buffer]]:
    """Raises `DamagedFile`."""
    with path.open("rb") as file:
        header = _read_header(file, path)
        data = memoryview(file.read())
    if zlib.crc32(data) != header.checksum:
        raise DamagedFile("the checksum of its arrays is wrong")
    buffers: list[Buffer] = []
    for array in header.arrays:
        buffers.append(Buffer(data[: array.nbytes], array.dtype, array.shape))
        data = data[array.nbytes :]
    return header, buffers


def _read_header(file: BinaryIO, path: Path) -> SpanHeader:
    start = file.read(len(MAGIC) + DIGEST_BYTES + LENGTH_BYTES)
    if not start.startswith(MAGIC):
        raise DamagedFile("it does not begin like a prefix file")
    digest = start[len(MAGIC) :][:DIGEST_BYTES]
    length = int.from_bytes(start[len(MAGIC) + DIGEST_BYTES :], "little")
    encoded = file.read(length) if length <= MAX_HEADER_BYTES else b""
    if hashlib.sha256(encoded).digest() != digest:
        raise DamagedFile("the checksum of its header is wrong")
    try:
        header = msgspec.json.decode(encoded, type=SpanHeader)
        size = file.tell() + header.nbytes
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as exc:
        raise DamagedFile(f"its header is of another kind: {exc}") from exc
    if header.key.name != path.name:
        raise DamagedFile(f"expected the name {header.key.name}")
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise DamagedFile(f"expected {size} bytes, found {found}")
    return header
