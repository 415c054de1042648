"""`python -m tests.crash.power WORK FOLDER`: what a power failure at any point of the work may leave, each state in a
folder of FOLDER."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from service.storage import SYNCED
from tests.crash.points import is_change
from tests.crash.works import WORKS

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

    def leave_present_names(self, target: Path, content: Callable[[bytes, bytes], bytes]) -> None:
        target.mkdir(mode=0o700)
        for path in sorted(self._folder.rglob("*")):
            left = target / path.relative_to(self._folder)
            if path.is_dir():
                left.mkdir(mode=0o700)
            else:
                now, synced = path.read_bytes(), self._contents.get(path.stat().st_ino, b"")
                left.write_bytes(now if now == synced else content(now, synced))

    def _leave(self, inode: int, target: Path) -> None:
        if os.path.isdir(self._pins[inode]):
            target.mkdir(mode=0o700)
            for name, entry in self._names.get(inode, {}).items():
                self._leave(entry, target / name)
        else:
            target.write_bytes(self._contents.get(inode, b""))


def record(folder: Path, states: Path) -> None:
    """From now on, writes the states before each change of `folder`, and before and after each sync."""
    drive = Drive(folder)
    points = 0
    looking = False

    def leave() -> None:
        nonlocal points
        points += 1
        drive.leave_synced_names(states / f"{points} names lost")
        for name, content in UNSYNCED.items():
            drive.leave_present_names(states / f"{points} {name}", content)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal looking
        if looking or not (event == SYNCED or is_change(event, arguments, folder)):
            return
        looking = True
        drive.pin()
        if event == SYNCED:
            leave()
            drive.sync(Path(str(arguments[0])))
        leave()
        looking = False

    sys.addaudithook(hook)


def main(name: str, root: Path) -> None:
    work, folder, states = WORKS[name], root / "work", root / "states"
    for new in (folder, states):
        new.mkdir(mode=0o700)
    work.prepare(folder)
    record(folder, states)
    work.run(folder)
    sys.audit("os.mkdir", folder, 0o700, -1)  # a point after the work


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
