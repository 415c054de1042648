"""`python -m tests.crash.points WORK FAULT EVERY FOLDER`: ends the work at its first point, at the one that is EVERY
points further, and so on, each time in a new folder, until a run has fewer points. Then checks what is left, and that
the work succeeds there."""

import errno
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from cache_backends.base import CacheUnavailable
from service.models.errors import ModelError
from service.recording.archive import ArchiveError
from tests.crash.works import WORKS, Work, check_and_repeat

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "sqlite3.connect"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
IN_WRITES = ("kill in a write", "full disk in a write")
ERRORS = {"full disk": errno.ENOSPC, "read-only": errno.EROFS}
EXPECTED = (OSError, CacheUnavailable, ArchiveError, ModelError)

ENDED = 0
SURVIVED = 1
DEFECT = 2


def is_change(event: str, arguments: tuple[object, ...], folder: Path) -> bool:
    """True if the audit event announces that something in `folder` is created, opened for writing or removed."""
    opens_to_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    return bool(opens_to_write or event in CHANGES) and str(arguments[0]).startswith(str(folder))


def break_points(folder: Path, at: int, fault: str, told: int) -> list[str]:
    """From the point number `at` on, every point has the fault. Writes its name to the descriptor `told`. Returns the
    points so far, in a list that grows."""
    points: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not is_change(event, arguments, folder):
            return
        points.append(f"{event} {Path(str(arguments[0])).name}")
        if len(points) < at:
            return
        if len(points) == at:
            os.write(told, points[-1].encode())
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]), str(arguments[0]))

    sys.addaudithook(hook)
    return points


def break_writes(at: int, fault: str, told: int) -> None:
    """No file grows beyond a size, which rises with `at`: the write that crosses it is cut short."""
    size = 10 * (at - 1) ** 5
    os.write(told, f"a file of {size} bytes".encode())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    # Python ignores the signal, so the next write fails with EFBIG.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault == "kill in a write" else signal.SIG_IGN)


def attempt(work: Work, folder: Path, at: int, fault: str, told: int) -> None:
    """In a forked process, which it ends."""
    points: list[str] = []
    if fault in IN_WRITES:
        break_writes(at, fault, told)
    else:
        points = break_points(folder, at, fault, told)
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


def end_at_points(name: str, fault: str, every: int, root: Path) -> Iterator[tuple[Path, str]]:
    """Yields the folder that is left and the name of the point."""
    work = WORKS[name]
    for at in count(1, every):
        folder = root / str(at)
        folder.mkdir(mode=0o700)
        work.prepare(folder)
        reading, told = os.pipe()
        child = os.fork()
        if child == 0:
            attempt(work, folder, at, fault, told)
        os.close(told)
        with open(reading) as pipe:
            point = pipe.read()
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status) == SURVIVED:
                return
            if os.WEXITSTATUS(status) != ENDED:
                sys.exit(f"{name}, {fault} at {point}: an error that was not expected")
        yield folder, point


def main(name: str, fault: str, every: int, root: Path) -> None:
    work = WORKS[name]
    # All ends come first: a fork copies no thread that a check may have started.
    left = list(end_at_points(name, fault, every, root))
    if not left:
        sys.exit(f"{name}: no point was found")
    for folder, point in left:
        check_and_repeat(work, folder, f"{name}, {fault} at {point}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
