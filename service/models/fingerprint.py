"""One digest of everything in a model's folder that can change an answer: part of every response-cache key."""

import hashlib
from pathlib import Path

import msgspec

from service.models.errors import InvalidModel
from service.storage import write_file

# Weights and adapters; config, generation config (it names the tokens that end an answer) and tokenizer; templates.
SUFFIXES = frozenset((".safetensors", ".json", ".jsonl", ".jinja", ".txt", ".model", ".tiktoken"))
TEMPLATE_FOLDER = "additional_chat_templates"


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """The SHA-256 of a file as it was when its size, time and inode were these."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str


Memory = dict[str, FileDigest]


def fingerprint(folder: Path, home: Path) -> str:
    """SHA-256 over names and contents, in hexadecimal: the same wherever the folder lies.

    Digests of files are remembered under `home`, so that weights are read once, not at every start; a `home` that
    cannot be written costs just that. Raises InvalidModel when a file cannot be read.
    """
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
    return [file for file in candidates if file.suffix in SUFFIXES and file.is_file() and file.name[0] != "."]


def _digest(file: Path, folder: Path, known: Memory) -> FileDigest:
    status = file.stat()
    before = known.get(file.relative_to(folder).as_posix())
    if before is not None and (before.size, before.mtime_ns, before.inode) == (
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
    ):
        return before
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return FileDigest(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino, sha256=sha256)


def _recall(memory_file: Path) -> Memory:
    try:
        return msgspec.json.decode(memory_file.read_bytes(), type=Memory)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _remember(memory_file: Path, digests: Memory) -> None:
    try:
        write_file(memory_file, msgspec.json.encode(digests))
    except OSError:
        return
