"""`python -m tests.crash.points WORK FAULT FOLDER`: what the work left when it was ended at its first point is then in
FOLDER/1, and so on. The last folder is of a run that had fewer points."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

from cache_backends.base import CacheUnavailable
from service.recording.archive import ArchiveError
from tests.crash.works import WORKS, Work

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "sqlite3.connect"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ERRORS = {"full disk": errno.ENOSPC, "read-only": errno.EROFS}
EXPECTED = (OSError, CacheUnavailable, ArchiveError)

ENDED = 0
SURVIVED = 1
DEFECT = 2


def install(folder: Path, at: int, fault: str) -> Callable[[], list[str]]:
    """From the point number `at` on, every point has the fault. The result returns the points so far."""
    points: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        if not str(arguments[0]).startswith(str(folder)):
            return
        points.append(f"{event} {Path(str(arguments[0])).name}")
        if len(points) < at:
            return
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]), str(arguments[0]))

    sys.addaudithook(hook)
    return lambda: points


def attempt(work: Work, folder: Path, at: int, fault: str) -> None:
    """In a forked process, which it ends."""
    points = install(folder, at, fault)
    status = ENDED
    try:
        work.run(folder)
    except EXPECTED:
        pass
    except BaseException:
        traceback.print_exc()
        status = DEFECT
    if len(points()) < at and status == ENDED:
        status = SURVIVED
    os._exit(status)


def main(name: str, fault: str, root: Path) -> None:
    work = WORKS[name]
    for at in count(1):
        folder = root / str(at)
        folder.mkdir(mode=0o700)
        work.prepare(folder)
        child = os.fork()
        if child == 0:
            attempt(work, folder, at, fault)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            continue
        if os.WEXITSTATUS(status) == SURVIVED:
            return
        if os.WEXITSTATUS(status) != ENDED:
            sys.exit(f"{name}, {fault}, point {at}: an error that was not expected")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
