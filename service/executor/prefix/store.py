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
    SpanKey,
    read_header,
    read_span,
)
from service.executor.prefix.tree import Node
from service.executor.prefix.worth import MeasuredPrices, Prices, is_worth_a_file, least_tokens
from service.executor.prefix.writer import PATIENCE_SECONDS, QUIET_SECONDS, Job, PrefixWriter
from service.storage import FOLDER_MODE, files_under, private_folder

log = logging.getLogger(__name__)

# Limit of the bytes that wait to be written. Spans beyond it are written when they are used again.
MAX_BACKLOG_BYTES = 1024**3

# Nothing is written for this long after the disk failed.
PAUSE_SECONDS = 60.0

# A draft file this old will not be finished.
DRAFT_SECONDS = 600.0

# How often the files of other processes with the same model are counted. They share the limit.
RECOUNT_SECONDS = 30.0

# Files of other models are deleted after this long without use.
FORGOTTEN_SECONDS = 30 * 24 * 3600.0


class StateBytes(Protocol):
    def to_buffers(self, state: Any) -> tuple[tuple[Any, ...], list[Buffer]]: ...
    def from_buffers(self, layouts: tuple[Any, ...], buffers: list[Buffer]) -> Any:
        """Raises ValueError, TypeError, LookupError or AttributeError for unfit bytes."""
        ...


class StoredSpan(msgspec.Struct, frozen=True):
    name: str
    key: SpanKey


class _Unwritten(msgspec.Struct):
    job: Job
    node: Node


class _File(msgspec.Struct):
    file_bytes: int
    node: Node | None


class PrefixStore:
    """Keeps at most `max_bytes` of one model; the least recently used go first. `model` identifies everything that a
    state depends on. The MLX thread owns it. A failing disk loses states, never an answer. With `prices`, states
    that are read again as quickly get no file."""

    def __init__(
        self,
        folder: Path,
        model: str,
        max_bytes: int,
        states: StateBytes,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        recount_seconds: float = RECOUNT_SECONDS,
        prices: MeasuredPrices | None = None,
    ) -> None:
        self._prices = prices
        self._model = model
        self._folder = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._states = states
        self._unwritten: dict[str, _Unwritten] = {}
        self._files: OrderedDict[Path, _File] = OrderedDict()
        self._nbytes = 0
        self._not_before = 0.0
        self._recount_seconds = recount_seconds
        self._recount_at = time.monotonic() + recount_seconds
        self._max_backlog_bytes = MAX_BACKLOG_BYTES
        for part in (folder, self._folder):
            private_folder(part).chmod(FOLDER_MODE)
        _delete_forgotten(folder, self._folder)
        self._spans = self._scan()
        self._writer = PrefixWriter(MAX_BACKLOG_BYTES, quiet_seconds)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def file_bytes(self, name: str) -> int:
        """Returns 0 for a file that is not written yet."""
        file = self._files.get(self._folder / name)
        return 0 if file is None else file.file_bytes

    def stored(self) -> list[StoredSpan]:
        """Returns each file after its parent."""
        return sorted(self._spans, key=lambda span: span.key.start)

    def adopt(self, node: Node, span: StoredSpan) -> None:
        node.file = span.name
        self._files[self._folder / span.name].node = node

    def set_headroom(self, headroom: int) -> None:
        """Limits the bytes that wait in memory to `headroom` above the present."""
        self._max_backlog_bytes = min(MAX_BACKLOG_BYTES, self._writer.backlog_bytes + headroom)
        if headroom < 0:
            self._writer.press()

    def load(self, node: Node) -> Any:
        """Deletes the file if it cannot be used."""
        if not node.file:
            return None
        started, on_disk = time.monotonic(), node.file not in self._unwritten
        try:
            state = self._states.from_buffers(*self._read(node.file))
        except (DamagedFile, OSError, ValueError, TypeError, LookupError, AttributeError) as exc:
            log.warning("The prefix file %s cannot be used and is deleted: %s", node.file, exc)
            self.discard([node])
            return None
        if self._prices is not None and on_disk:
            self._prices.learn_load(state.nbytes, time.monotonic() - started)
        return state

    def learn_reading(self, tokens: int, seconds: float) -> None:
        """Takes in the time in which the model read tokens."""
        if self._prices is not None:
            self._prices.learn_token(tokens, seconds)

    def least_tokens(self, fixed: int, per_token: int) -> int | None:
        return least_tokens(fixed, per_token, Prices() if self._prices is None else self._prices.prices)

    def save(self, path: list[Node]) -> None:
        """Queues the states of nodes, each the parent of the next, and marks their files as used."""
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

    def collect_writes(self) -> list[Node]:
        """Returns the nodes that have no state left."""
        lost: list[Node] = []
        for job, file_bytes, seconds in self._writer.written():
            if self._prices is not None and file_bytes:
                self._prices.learn_write(file_bytes, seconds)
            name = job.key.name
            unwritten = self._unwritten.get(name)
            if unwritten is None or unwritten.job is not job:  # dropped, but perhaps written
                if unwritten is None and self._folder / name not in self._files:
                    self.delete(name)
                continue
            del self._unwritten[name]
            if file_bytes is None:
                self._not_before = time.monotonic() + PAUSE_SECONDS
                unwritten.node.file = ""
                lost.append(unwritten.node)
            else:
                self._add(self._folder / name, _File(file_bytes, unwritten.node))
                self._recount()
        lost += self._shrink()
        return [node for node in lost if node.state is None and not node.removed]

    def discard(self, nodes: list[Node]) -> None:
        for node in nodes:
            if node.file in self._unwritten:
                self._writer.drop(self._unwritten.pop(node.file).job)
            elif node.file:
                self.delete(node.file)
            node.file = ""

    def delete(self, name: str) -> None:
        self._delete(self._folder / name)

    def rest(self, resting: bool) -> None:
        self._writer.rest(resting)

    def close(self) -> None:
        self._writer.close()
        self.collect_writes()

    def _submit(self, node: Node) -> None:
        """Queues the node, and those before it that were not worth a file without it, if all together are."""
        nodes = [each for each in node.path() if not each.file]
        tokens, nbytes = sum(len(each.tokens) for each in nodes), sum(each.nbytes for each in nodes)
        if self._prices is None or is_worth_a_file(tokens, nbytes, self._prices.prices):
            for each in nodes:
                self._queue(each)

    def _queue(self, node: Node) -> None:
        parent = node.parent
        if parent is None or not (parent.file or parent.parent is None) or node.state is None:
            return
        backlog, limit = self._writer.backlog_bytes, self._max_backlog_bytes
        fits = backlog + node.nbytes <= limit or (backlog == 0 and limit == MAX_BACKLOG_BYTES)
        if not fits or time.monotonic() < self._not_before:
            return
        key = SpanKey(model=self._model, caller=node.caller, parent=parent.file, start=node.start, tokens=node.tokens)
        name = key.name
        layouts, buffers = self._states.to_buffers(node.state)
        before = time.monotonic() + PATIENCE_SECONDS
        job = Job(folder=self._folder, key=key, layouts=layouts, buffers=buffers, write_before=before)
        self._unwritten[name] = _Unwritten(job, node)
        self._writer.submit(job)
        node.file = name

    def _read(self, name: str) -> tuple[tuple[Any, ...], list[Buffer]]:
        unwritten = self._unwritten.get(name)
        if unwritten is not None:
            return unwritten.job.layouts, unwritten.job.buffers
        header, buffers = read_span(self._folder / name)
        return header.layouts, buffers

    def _recount(self) -> None:
        """Takes in what another process has written or deleted: an engine that still ends, or another server's."""
        if time.monotonic() < self._recount_at:
            return
        self._recount_at = time.monotonic() + self._recount_seconds
        sizes = {path: status.st_size for path, status in files_under(self._folder) if path.suffix == SUFFIX}
        for path in [path for path in self._files if path not in sizes]:
            self._nbytes -= self._files.pop(path).file_bytes
        for path, size in sizes.items():
            if path not in self._files:
                self._add(path, _File(size, None))

    def _add(self, path: Path, file: _File) -> None:
        before = self._files.pop(path, None)  # another process may have written the same span
        self._nbytes += file.file_bytes - (before.file_bytes if before else 0)
        self._files[path] = file

    def _shrink(self) -> list[Node]:
        """Returns the nodes that lost their file."""
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

    def _scan(self) -> list[StoredSpan]:
        found: list[tuple[float, int, Path]] = []
        for path, status in files_under(self._folder):
            if path.suffix == SUFFIX:
                found.append((status.st_mtime, status.st_size, path))
            elif path.suffix == DRAFT_SUFFIX and status.st_mtime < time.time() - DRAFT_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
        spans: list[StoredSpan] = []
        for _, size, path in sorted(found):
            self._files[path] = _File(size, None)
            self._nbytes += size
            if (key := self._read_key(path)) is not None:
                spans.append(StoredSpan(path.name, key))
        self._shrink()
        return [span for span in spans if self._folder / span.name in self._files]

    def _read_key(self, path: Path) -> SpanKey | None:
        try:
            key = read_header(path).key
        except (DamagedFile, OSError) as exc:
            log.warning("The prefix file %s cannot be used and is deleted: %s", path.name, exc)
        else:
            if key.model == self._model:
                return key
            log.warning("The prefix file %s is deleted: it belongs to another model", path.name)
        self._delete(path)
        return None


def _delete_forgotten(folder: Path, own: Path) -> None:
    for path, status in files_under(folder):
        if path.parent != own and path.suffix == SUFFIX and status.st_mtime < time.time() - FORGOTTEN_SECONDS:
            with contextlib.suppress(OSError):
                path.unlink()
