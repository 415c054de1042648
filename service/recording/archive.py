"""JSON lines: a header, then an answer or token count each. The last line of a key counts. `crc` is the CRC-32 of a
line's other fields. Lines of older versions have none, and neither have those that a person has edited."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

import msgspec

from service.generation import Completion, Tokens
from service.profile import ModelProfile
from service.response_cache.key import KEY_VERSION
from service.response_cache.record import UnixSeconds
from service.storage import FILE_MODE, open_regular, require_regular

FORMAT_VERSION = 1

CHECKSUM = "crc"

# Opening a pipe only to write would wait for a reader.
WRITING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

CacheKey = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


_SORTED = msgspec.json.Encoder(order="deterministic")


class ArchiveError(Exception):
    """The message names file and line, what was expected and what was found."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of another `key_version` match no request. `profile` is None if the answers may come from several models."""

    format: Literal["anyclaude-answers"]
    version: int
    key_version: int
    profile: ModelProfile | None


class AnswerEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="answer"):
    """An answer without `expires_at` never expires."""

    key: CacheKey
    stored_at: UnixSeconds
    expires_at: UnixSeconds | None = None
    completion: Completion


class CountEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="count"):
    key: CacheKey
    prompt_tokens: Tokens


Entry = AnswerEntry | CountEntry


def new_header(profile: ModelProfile | None) -> Header:
    return Header(format="anyclaude-answers", version=FORMAT_VERSION, key_version=KEY_VERSION, profile=profile)


def read_header(path: Path) -> Header:
    """Raises ArchiveError."""
    return _header(path, next(_lines(path), b""))


def read_entries(path: Path) -> Iterator[Entry]:
    """Verifies each entry when it is read. Raises ArchiveError."""
    lines = _lines(path)
    _header(path, next(lines, b""))
    for number, line in enumerate(lines, start=2):
        yield _entry(path, number, line)


class ArchiveWriter:
    """Appends to a file that only its owner can read. An existing file must have the same header."""

    def __init__(self, path: Path, header: Header) -> None:
        """Raises ArchiveError and OSError."""
        self._descriptor = os.open(path, WRITING, FILE_MODE)
        try:
            require_regular(self._descriptor, path)
            status = os.fstat(self._descriptor)
            # A killed process may have cut the last line, and a power failure may have left zeros in its place. The
            # next one must not continue it.
            end = _end_of_last_line(path)
            if end == 0 and status.st_size and not _encode(header).startswith(path.read_bytes().rstrip(b"\0")):
                end = status.st_size
            if end and (found := read_header(path)) != header:
                raise ArchiveError(_other_header(path, header, found))
            if end < status.st_size:
                os.ftruncate(self._descriptor, end)
            if status.st_mode & 0o777 != FILE_MODE:
                os.fchmod(self._descriptor, FILE_MODE)
            if end == 0:
                self._write(header)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ArchiveWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, entry: Entry) -> None:
        """Adds nothing if it raises OSError."""
        self._write(entry)

    def close(self) -> None:
        """May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, value: Header | Entry) -> None:
        # One write for each entry, so a killed process leaves whole lines.
        rest = line = _encode(value) if isinstance(value, Header) else _with_checksum(value)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            # A nearly full disk may accept only the beginning of a line.
            if written := len(line) - len(rest):
                os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_CUR) - written)
            raise


def _encode(value: Header | Entry) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _with_checksum(entry: Entry) -> bytes:
    fields = msgspec.to_builtins(entry)
    return msgspec.json.encode({**fields, CHECKSUM: _checksum(fields)}) + b"\n"


def _checksum(fields: dict[str, Any]) -> int:
    return zlib.crc32(_SORTED.encode(fields))


def _end_of_last_line(path: Path) -> int:
    with open_regular(path) as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as file:
            yield from file
    except OSError as exc:
        raise ArchiveError(f"{path} cannot be read: {exc.strerror}.") from None


def _header(path: Path, line: bytes) -> Header:
    header: Header = _decode(path, 1, line, Header, "the head of a file of answers")
    if header.version != FORMAT_VERSION:
        raise ArchiveError(f"{path}: expected format version {FORMAT_VERSION}, found {header.version}.")
    if header.key_version != KEY_VERSION:
        raise ArchiveError(
            f"{path}: expected response-cache keys of version {KEY_VERSION}, found {header.key_version}: no request "
            "would find its answer. Record or export it anew with this version."
        )
    return header


def _entry(path: Path, number: int, line: bytes) -> Entry:
    expected = "an answer or a count of tokens"
    fields: dict[str, Any] = _decode(path, number, line, dict[str, Any], expected)
    checksum = fields.pop(CHECKSUM, None)
    entry: Entry = _decode(path, number, fields, Entry, expected)
    if checksum is not None and checksum != _checksum(fields):
        raise ArchiveError(
            f"{path}, line {number}: expected {CHECKSUM!r} {_checksum(fields)}, found {checksum!r}: the line is "
            f"damaged. If you have edited it, remove {CHECKSUM!r} from it."
        )
    return entry


def _decode(path: Path, number: int, given: bytes | dict[str, Any], kind: Any, expected: str) -> Any:
    """`given` is a line, or its fields."""
    try:
        return msgspec.json.decode(given, type=kind) if isinstance(given, bytes) else msgspec.convert(given, kind)
    except (ValueError, RecursionError) as exc:
        raise ArchiveError(f"{path}, line {number}: expected {expected}, found something else: {exc}.") from None


def _other_header(path: Path, header: Header, found: Header) -> str:
    ours, theirs = (header.profile, found.profile)
    names = [f"{profile.id} ({profile.fingerprint[:12]})" if profile else "no one model" for profile in (ours, theirs)]
    return f"{path} holds answers of {names[1]}, and this server's are of {names[0]}. Record to another file."
