"""`python -m tests.crash.power WORK EVERY FOLDER`: writes what a power failure may leave at the work's first point, at
the one that is EVERY points further, and so on. Then checks each of these states, and that the work succeeds there."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.storage import SYNCED
from tests.crash.points import is_change
from tests.crash.works import WORKS, check_and_repeat

SMALL_BYTES = 200

# What may be left of a file, from its present and its synced content.
UNSYNCED: dict[str, Callable[[bytes, bytes], bytes]] = {
    "synced alone": lambda now, synced: synced,
    "zeros": lambda now, synced: synced + bytes(max(0, len(now) - len(synced))),
    "half": lambda now, synced: now[: (len(now) + len(synced)) // 2],
}


class Drive:
    """Knows which contents and names below `folder` were synced. All that is there at first is synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._pins: dict[int, int] = {}
        self.pin()
        for path in (folder, *folder.rglob("*")):
            self.sync(path)

    def pin(self) -> None:
        """Keeps the number of each file and folder from being given to another one."""
        for path in (self._folder, *self._folder.rglob("*")):
            with suppress(FileNotFoundError):  # as below
                inode = path.stat().st_ino
                if inode not in self._pins:
                    self._pins[inode] = os.open(path, os.O_RDONLY)

    def sync(self, path: Path) -> None:
        if path.is_dir():
            self._names[path.stat().st_ino] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self._contents[path.stat().st_ino] = path.read_bytes()

    def leave_synced_names(self, target: Path) -> None:
        self._leave(self._folder.stat().st_ino, target)

    def leave_present_names(
        self, target: Path, content: Callable[[bytes, bytes], bytes], *, above_bytes: int = 0
    ) -> None:
        """Files of at most `above_bytes` have their present content."""
        target.mkdir(mode=0o700)
        for path in sorted(self._folder.rglob("*")):
            left = target / path.relative_to(self._folder)
            if path.is_dir():
                left.mkdir(mode=0o700)
                continue
            with suppress(FileNotFoundError):  # another thread of the work has just removed it
                status, now = path.stat(), path.read_bytes()
                synced = self._contents.get(status.st_ino, b"")
                left.write_bytes(now if now == synced or len(now) <= above_bytes else content(now, synced))
                os.utime(left, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _leave(self, inode: int, target: Path) -> None:
        if os.path.isdir(self._pins[inode]):
            target.mkdir(mode=0o700)
            for name, entry in self._names.get(inode, {}).items():
                self._leave(entry, target / name)
        else:
            target.write_bytes(self._contents.get(inode, b""))


def record(folder: Path, every: int, states: Path) -> None:
    """From now on, the points are before each change of `folder`, and before and after each sync."""
    drive = Drive(folder)
    points = 0
    looking = False
    one_thread = threading.RLock()

    def leave() -> None:
        nonlocal points
        points += 1
        if (points - 1) % every:
            return
        drive.leave_synced_names(states / f"{points} names lost")
        for name, content in UNSYNCED.items():
            drive.leave_present_names(states / f"{points} {name}", content)
        drive.leave_present_names(states / f"{points} large zeros", UNSYNCED["zeros"], above_bytes=SMALL_BYTES)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal looking
        synced = event == SYNCED and str(arguments[0]).startswith(str(folder))
        if not (synced or is_change(event, arguments, folder)):
            return
        with one_thread:
            if looking:
                return
            looking = True
            drive.pin()
            if synced:
                leave()
                drive.sync(Path(str(arguments[0])))
            leave()
            looking = False

    sys.addaudithook(hook)


def main(name: str, every: int, root: Path) -> None:
    work, folder, states = WORKS[name], root / "work", root / "states"
    for new in (folder, states):
        new.mkdir(mode=0o700)
    work.prepare(folder)
    record(folder, every, states)
    work.run(folder)
    sys.audit("os.mkdir", folder, 0o700, -1)  # a point after the work
    left = list(states.iterdir())
    if len(left) <= len(UNSYNCED) + 2:
        sys.exit(f"{name}: no point was found")
    for state in left:
        check_and_repeat(work, state, f"{name}, a power failure at point {state.name}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
