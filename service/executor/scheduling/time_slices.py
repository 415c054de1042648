"""Engine processes on one device compute in turn, each for the same time.

They map one file into memory, with a slot for each: the time of its last step, or 0 without work, and the seconds that
it has computed. Slots and the device are locks on bytes of the file, which end with their process.
"""

import fcntl
import logging
import mmap
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from service.storage import FILE_MODE, private_folder

log = logging.getLogger(__name__)

ENGINES = 16
DEVICE = ENGINES  # the byte whose lock is the device; those before it are the slots'
TABLE_BYTES = 16 * ENGINES  # two doubles each

# Between two small models, tokens come in bursts of twice this length.
SLICE_SECONDS = 0.05
POLL_SECONDS = 0.001

# An engine whose step takes longer may hang, and is not waited for.
PATIENCE_SECONDS = 3.0


def may_compute(used: float, others: Sequence[float], *, has_device: bool) -> bool:
    """`used` and `others`: seconds that this engine and the others with work have computed."""
    return used <= min(others, default=used) + (SLICE_SECONDS if has_device else 0.0)


class TimeSlices:
    """This process computes until it is `SLICE_SECONDS` ahead of another engine with work, then waits until it is not
    ahead. `contended`: another engine has work."""

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OSError, also if `ENGINES` processes have a slot."""
        self.contended = False
        self._clock = clock
        self._began: float | None = None
        self._has_device = False
        private_folder(file.parent)
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, FILE_MODE)  # never closed: that would end the locks
        if os.fstat(self._file).st_size < TABLE_BYTES:
            os.pwrite(self._file, bytes(TABLE_BYTES), 0)  # a full disk would end a process that writes into a hole
        self._table = memoryview(mmap.mmap(self._file, TABLE_BYTES)).cast("d")
        slot = next((slot for slot in range(ENGINES) if self._lock(slot)), None)
        if slot is None:
            raise OSError(f"{ENGINES} engines use it")
        self._seen, self._used = 2 * slot, 2 * slot + 1
        self._table[self._seen] = 0.0

    def begin(self) -> None:
        """Called before each step."""
        now = self._clock()
        others = self._others(now)
        if self._began is None:  # what was computed before a pause is no claim and no debt
            self._table[self._used] = min(others, default=0.0)
        else:
            self._table[self._used] += now - self._began
        self._table[self._seen] = now
        self.contended = bool(others)
        if not may_compute(self._table[self._used], others, has_device=True):
            self._free_device()
        while not (self._has_device or self._may_begin()):
            time.sleep(POLL_SECONDS)
        self._began = self._clock()

    def end(self) -> None:
        if self._began is not None:
            self._free_device()
            self._began, self._table[self._seen] = None, 0.0

    def _may_begin(self) -> bool:
        self._table[self._seen] = now = self._clock()
        others = self._others(now)
        if not may_compute(self._table[self._used], others, has_device=False):
            return False
        self._has_device = self._lock(DEVICE)
        return self._has_device or not others

    def _others(self, now: float) -> list[float]:
        """Returns the seconds that each other engine with work has computed."""
        # A step may have begun since `now`. Times from before the machine's last start may be far in the future.
        seen, used = self._table[::2], self._table[1::2]
        return [used[i] for i in range(ENGINES) if 2 * i != self._seen and abs(seen[i] - now) < PATIENCE_SECONDS]

    def _lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def _free_device(self) -> None:
        if self._has_device:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, DEVICE)
            self._has_device = False


def open_time_slices(home: Path) -> TimeSlices | None:
    try:
        return TimeSlices(home / "time-slices")
    except OSError as exc:
        log.warning("Engines on this device do not take turns: %s", exc)
        return None
