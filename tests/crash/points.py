"""`python -m tests.crash.points WORK FAULT FOLDER`: what the work left when it was ended at its first point is then in
FOLDER/1, and so on. The last folder is of a run that had fewer points."""

import errno
import os
import resource
import signal
import sys
import traceback
from itertools import count
from pathlib import Path

from cache_backends.base import CacheUnavailable
from service.recording.archive import ArchiveError
from tests.crash.works import WORKS, Work

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "sqlite3.connect"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
IN_WRITES = ("kill in a write", "full disk in a write")
ERRORS = {"full disk": errno.ENOSPC, "read-only": errno.EROFS}
EXPECTED = (OSError, CacheUnavailable, ArchiveError)

ENDED = 0
SURVIVED = 1
DEFECT = 2


def is_change(event: str, arguments: tuple[object, ...], folder: Path) -> bool:
    """True if the audit event announces that something in `folder` is created, opened for writing or removed."""
    opens_to_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    return bool(opens_to_write or event in CHANGES) and str(arguments[0]).startswith(str(folder))


def break_points(folder: Path, at: int, fault: str) -> list[str]:
    """From the point number `at` on, every point has the fault. Returns the points so far, in a list that grows."""
    points: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not is_change(event, arguments, folder):
            return
        points.append(f"{event} {Path(str(arguments[0])).name}")
        if len(points) < at:
            return
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]), str(arguments[0]))

    sys.addaudithook(hook)
    return points


def break_writes(at: int, fault: str) -> None:
    """No file grows beyond a size, which rises with `at`: the write that crosses it is cut short."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * (at - 1) ** 5,) * 2)
    # Python ignores the signal, so the next write fails with EFBIG.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault == "kill in a write" else signal.SIG_IGN)


def attempt(work: Work, folder: Path, at: int, fault: str) -> None:
    """In a forked process, which it ends."""
    points: list[str] = []
    if fault in IN_WRITES:
        break_writes(at, fault)
    else:
        points = break_points(folder, at, fault)
    status = ENDED
    try:
        work.run(folder)
        if len(points) < at:
            status = SURVIVED
    except EXPECTED:
        pass
    except BaseException:
        traceback.print_exc()
        status = DEFECT
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
