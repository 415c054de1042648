"""The prefix cache on disk: one file a run, at most so many bytes, the least recently used removed first."""

import contextlib
import hashlib
import logging
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import msgspec

from service.executor.prefix.file import (
    DRAFT_SUFFIX,
    SUFFIX,
    Buffer,
    DamagedFile,
    RunKey,
    read_header,
    read_run,
)
from service.executor.prefix.tree import Node
from service.executor.prefix.writer import PATIENCE_SECONDS, Job, PrefixWriter
from service.storage import FOLDER_MODE, files_under, private_folder

log = logging.getLogger(__name__)

MAX_BACKLOG_BYTES = 1024**3
"""The most that may wait to be written. Runs beyond it are written when they are used again."""

PAUSE_SECONDS = 60.0
"""How long nothing is written after the disk has failed."""

DRAFT_SECONDS = 600.0
"""A file begun longer ago will not be finished."""


class StateBytes(Protocol):
    """Between states and their bytes, as `state.PromptCaches` does it."""

    def to_buffers(self, state: Any) -> tuple[tuple[Any, ...], list[Buffer]]: ...
    def from_buffers(self, layouts: tuple[Any, ...], buffers: list[Buffer]) -> Any:
        """Raises ValueError, TypeError, LookupError or AttributeError for what fits no state."""
        ...


class StoredRun(msgspec.Struct, frozen=True):
    """A file of this model that was there at the start."""

    name: str
    key: RunKey


class _Unwritten(msgspec.Struct):
    """A file on its way to the disk. `node` None: nobody needs it any more."""

    job: Job
    node: Node | None


class _File(msgspec.Struct):
    """`node` None: it belongs to another model, and only counts."""

    file_bytes: int
    node: Node | None


class PrefixStore:
    """The files under `folder`, of all models at most `max_bytes`. Those of `model` are used: it names all that a state
    depends on. Called by the engine's thread alone. A disk that fails costs what would have been on it."""

    def __init__(self, folder: Path, model: str, max_bytes: int, states: StateBytes) -> None:
        self._model = model
        self._folder = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._states = states
        self._unwritten: dict[str, _Unwritten] = {}
        self._files: OrderedDict[Path, _File] = OrderedDict()
        self._nbytes = 0
        self._not_before = 0.0
        self._max_backlog_bytes = MAX_BACKLOG_BYTES
        for part in (folder, self._folder):
            private_folder(part).chmod(FOLDER_MODE)
        self._runs = self._scan(folder)
        self._writer = PrefixWriter()

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def stored(self) -> list[StoredRun]:
        """The files of this model that were there at the start, each after the one that it stands on."""
        return sorted(self._runs, key=lambda run: run.key.start)

    def adopt(self, node: Node, run: StoredRun) -> None:
        """Takes `node` for what is in the file."""
        node.file = run.name
        self._files[self._folder / run.name].node = node

    def allow(self, more: int) -> None:
        """What waits to be written is held in memory: at most so many bytes more than now."""
        self._max_backlog_bytes = min(MAX_BACKLOG_BYTES, self._writer.backlog_bytes + more)

    def load(self, node: Node) -> Any:
        """The state in the node's file, or None: a file that cannot be used is deleted."""
        if not node.file:
            return None
        try:
            return self._states.from_buffers(*self._read(node.file))
        except (DamagedFile, OSError, ValueError, TypeError, LookupError, AttributeError) as exc:
            log.warning("The prefix file %s is not used, and deleted: %s", node.file, exc)
            self.discard([node])
            return None

    def save(self, path: list[Node]) -> None:
        """Has the states of these runs written, each of which stands on the one before it, and marks their files as
        used."""
        now = time.time()
        for node in path:
            if not node.file:
                self._submit(node)
        for node in reversed(path):
            file = self._folder / node.file
            if file in self._files:
                self._files.move_to_end(file)
                with contextlib.suppress(OSError):
                    os.utime(file, (now, now))

    def settle(self) -> list[Node]:
        """Takes in what has been written. Returns the nodes that have no state left anywhere."""
        lost: list[Node] = []
        for job, file_bytes in self._writer.written():
            node = self._unwritten.pop(job.key.name).node
            if file_bytes is None:
                self._not_before = time.monotonic() + PAUSE_SECONDS
                if node is not None:
                    node.file = ""
                    lost.append(node)
            elif node is None:
                self.delete(job.key.name)
            else:
                self._nbytes += file_bytes
                self._files[self._folder / node.file] = _File(file_bytes, node)
        lost += self._shrink()
        return [node for node in lost if node.state is None and not node.removed]

    def discard(self, nodes: list[Node]) -> None:
        """Deletes the files of nodes that are gone."""
        for node in nodes:
            if node.file in self._unwritten:
                self._unwritten[node.file].node = None  # `settle` deletes it
            elif node.file:
                self.delete(node.file)
            node.file = ""

    def delete(self, name: str) -> None:
        self._delete(self._folder / name)

    def rest(self, resting: bool) -> None:
        """Tells when nothing is being computed: a good time to write."""
        self._writer.rest(resting)

    def close(self) -> None:
        self._writer.close()
        self.settle()

    def _submit(self, node: Node) -> None:
        parent = node.parent
        if parent is None or not (parent.file or parent.parent is None) or node.state is None:
            return
        if self._writer.backlog_bytes > self._max_backlog_bytes or time.monotonic() < self._not_before:
            return
        key = RunKey(model=self._model, caller=node.caller, parent=parent.file, start=node.start, tokens=node.tokens)
        name = key.name
        if name in self._unwritten:  # begun for a node of this run that is gone
            self._unwritten[name].node = node
        else:
            layouts, buffers = self._states.to_buffers(node.state)
            before = time.monotonic() + PATIENCE_SECONDS
            job = Job(folder=self._folder, key=key, layouts=layouts, buffers=buffers, write_before=before)
            self._unwritten[name] = _Unwritten(job, node)
            self._writer.submit(job)
        node.file = name

    def _read(self, name: str) -> tuple[tuple[Any, ...], list[Buffer]]:
        """The layouts and the arrays of a file, or of what is about to be one."""
        unwritten = self._unwritten.get(name)
        if unwritten is not None:
            return unwritten.job.layouts, unwritten.job.buffers
        header, buffers = read_run(self._folder / name)
        return header.layouts, buffers

    def _shrink(self) -> list[Node]:
        """Deletes files until the rest fits. Returns the nodes of this model that they were of."""
        nodes: list[Node] = []
        while self._nbytes > self._max_bytes and self._files:
            path, file = next(iter(self._files.items()))
            self._delete(path)
            if file.node is not None:
                file.node.file = ""
                nodes.append(file.node)
        return nodes

    def _delete(self, path: Path) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            self._nbytes -= file.file_bytes
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("A prefix file could not be deleted: %s", exc)

    def _scan(self, folder: Path) -> list[StoredRun]:
        """Takes stock of what is there, the least recently used first."""
        found: list[tuple[float, int, Path]] = []
        for path, status in files_under(folder):
            if path.suffix == SUFFIX:
                found.append((status.st_mtime, status.st_size, path))
            elif path.suffix == DRAFT_SUFFIX and status.st_mtime < time.time() - DRAFT_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
        runs: list[StoredRun] = []
        for _, size, path in sorted(found):
            self._files[path] = _File(size, None)
            self._nbytes += size
            if path.parent == self._folder and (key := self._read_key(path)) is not None:
                runs.append(StoredRun(path.name, key))
        self._shrink()
        return [run for run in runs if self._folder / run.name in self._files]

    def _read_key(self, path: Path) -> RunKey | None:
        """What the file is for; one that is damaged or of another model is deleted."""
        try:
            key = read_header(path).key
        except (DamagedFile, OSError) as exc:
            log.warning("The prefix file %s is not used, and deleted: %s", path.name, exc)
        else:
            if key.model == self._model:
                return key
            log.warning("The prefix file %s is deleted: it is of another model", path.name)
        self._delete(path)
        return None
