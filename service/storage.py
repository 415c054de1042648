"""Folders of ours on disk: owner-only, locked between processes, and never seen half-written."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def private_folder(path: Path) -> Path:
    """Makes `path` and whatever is missing above it, for the owner alone. `Path.mkdir` would give its mode to the
    last folder only."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the lock file `path`; `on_wait` is called once if another process has it. The lock ends with its process,
    however that ends."""
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
    """Moves a finished folder to its place in one step, on disk before it can be seen. Replaces an older one.

    `built` and `target` are on one file system. Two processes at once need a lock around it.
    """
    for path in (*built.rglob("*"), built):
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
        _sync(path)
    private_folder(target.parent)
    if target.exists():
        shutil.rmtree(target)
    built.rename(target)
    _sync(target.parent)


def write_file(path: Path, content: bytes) -> None:
    """Replaces a small file in one step."""
    private_folder(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
