import hashlib
from pathlib import Path

import msgspec
from msgspec.structs import replace

from service.models.errors import InvalidModel
from service.storage import write_file

# Weights and adapters; config, generation config (with the tokens that end an answer), tokenizer; templates.
SUFFIXES = frozenset((".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".model", ".tiktoken"))
TEMPLATE_FOLDER = "additional_chat_templates"

# Smaller files are read at every start, which takes a millisecond each and does not rely on their times.
REMEMBERED_BYTES = 1_000_000


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """Users can set `mtime_ns` but not `ctime_ns`, so an edit in place shows."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str


Digests = dict[str, FileDigest]


def fingerprint(folder: Path, home: Path, adapter: Path | None = None) -> str:
    """Returns the SHA-256, in hexadecimal, over names and contents of all files that can change an answer; the folder's
    place does not count. Digests of large files are kept under `home`. Raises `InvalidModel`."""
    own = _fingerprint(folder, home)
    if adapter is None:
        return own
    return hashlib.sha256(f"{own} {_fingerprint(adapter, home)}".encode()).hexdigest()


def _fingerprint(folder: Path, home: Path) -> str:
    memory_file = home / "models" / ".digests" / f"{hashlib.sha256(bytes(folder.absolute())).hexdigest()}.json"
    known = _recall(memory_file)
    try:
        fresh = {file.relative_to(folder).as_posix(): _digest(file, folder, known) for file in _files(folder)}
    except OSError as exc:
        raise InvalidModel(f"A file of the model cannot be read: {exc}.") from exc
    if fresh != known:
        _remember(memory_file, fresh)
    return hashlib.sha256(msgspec.json.encode([(name, fresh[name].sha256) for name in sorted(fresh)])).hexdigest()


def _files(folder: Path) -> list[Path]:
    candidates = (*folder.iterdir(), *folder.glob(f"{TEMPLATE_FOLDER}/*"))
    return [file for file in candidates if file.suffix.lower() in SUFFIXES and file.is_file() and file.name[0] != "."]


def _digest(file: Path, folder: Path, known: Digests) -> FileDigest:
    status = file.stat()
    found = FileDigest(
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        sha256="",
    )
    before = known.get(file.relative_to(folder).as_posix(), found)
    if status.st_size >= REMEMBERED_BYTES and before.sha256 and replace(before, sha256="") == found:
        return before
    with file.open("rb") as opened:
        return replace(found, sha256=hashlib.file_digest(opened, "sha256").hexdigest())


def _recall(memory_file: Path) -> Digests:
    try:
        return msgspec.json.decode(memory_file.read_bytes(), type=Digests)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _remember(memory_file: Path, digests: Digests) -> None:
    try:
        write_file(memory_file, msgspec.json.encode(digests))
    except OSError:
        return
