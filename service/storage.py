"""Folders that only the owner can read, locked between processes and never seen half-written."""

import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE = 0o700
FILE_MODE = 0o600
# The audit event after each sync, with the path. Tests of a power failure keep what was synced.
SYNCED = "service.storage.synced"


def open_regular(path: Path) -> BinaryIO:
    """Raises OSError for a device or a pipe too, because reading might never end."""
    # A pipe without a writer would block `open`.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        require_regular(descriptor, path)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(descriptor: int, path: Path) -> None:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        found = "a pipe" if stat.S_ISFIFO(mode) else "a device"
        problem = f"expected a regular file, found {found}: replace it with a file, or name another"
        raise OSError(errno.EINVAL, problem, str(path))


def private_folder(path: Path) -> Path:
    """Creates `path` and its missing parents with mode 0700."""
    for folder in (*reversed(path.parents), path):  # `Path.mkdir` applies its mode to the last folder only
        if not folder.exists():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Calls `on_wait` once if another process holds the lock file `path`. The lock ends with its process, even if that
    is killed."""
    private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def publish_folder(built: Path, target: Path) -> None:
    """Syncs `built` to disk and moves it to `target`, replacing an older folder. Both must be on one file system. The
    caller holds a lock."""
    for path in (*built.rglob("*"), built):
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
        sync(path)
    private_folder(target.parent)
    if target.exists():
        shutil.rmtree(target)
    built.rename(target)
    sync(target.parent)


def files_under(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields all files below `folder`. Files and folders that vanish meanwhile are skipped."""
    for place, _, names in os.walk(folder):  # `Path.rglob` raises for a folder that vanishes
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                yield path, path.stat()


def folder_bytes(folder: Path) -> int:
    return sum(status.st_size for _, status in files_under(folder))


def write_file(path: Path, content: bytes) -> None:
    """Replaces the file. It has its old or its new content, also after a power failure."""
    private_folder(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as file:
            file.write(content)
        publish_file(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def publish_file(written: Path, target: Path) -> None:
    """Syncs the file and moves it to `target`, replacing an older one, in the same folder."""
    # Without it, a power failure after the rename may leave an empty file in place of the old one.
    sync(written)
    written.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Returns when the file, or the names in the folder, would outlive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sys.audit(SYNCED, path)
