"""One engine's turns. The test writes the slots of the other engines into their file; a process holds their locks."""

import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.executor.scheduling.time_slices import (
    DEVICE,
    ENGINES,
    PATIENCE_SECONDS,
    SLICE_SECONDS,
    TABLE_BYTES,
    TimeSlices,
    may_compute,
    open_time_slices,
)

HOLD_LOCKS = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
for byte in sys.argv[2:]:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(byte))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(file: Path, *bytes_: int) -> Iterator[None]:
    """Fails if this process has one of the locks."""
    command = [sys.executable, "-I", "-S", "-c", HOLD_LOCKS, str(file), *map(str, bytes_)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.communicate()


class Bench:
    """An engine in slot 0, whose clock stands unless the test moves it."""

    def __init__(self, file: Path) -> None:
        self.now = 1000.0
        self.looks = 0
        self.file = file
        with file.open("r+b") as opened:  # closing it would end the locks of this process, so it comes first
            self.table = memoryview(mmap.mmap(opened.fileno(), TABLE_BYTES)).cast("d")
        self.slices = TimeSlices(file, clock=self.clock)

    def clock(self) -> float:
        self.looks += 1
        return self.now

    def slot(self, number: int) -> tuple[float, float]:
        """Returns when it was last seen with work, and the seconds that it has computed."""
        return self.table[2 * number], self.table[2 * number + 1]

    def work(self, number: int, used: float, *, seen: float | None = None) -> None:
        self.table[2 * number + 1] = used
        self.table[2 * number] = self.now if seen is None else seen

    def begin(self) -> None:
        self._join(self._start())

    @contextmanager
    def waiting(self) -> Iterator[threading.Thread]:
        """`begin` waits, and does so no more after the block."""
        thread = self._start()
        self.expect_waiting(thread)
        yield thread
        self._join(thread)

    def expect_waiting(self, thread: threading.Thread) -> None:
        looks = self.looks
        while thread.is_alive() and self.looks < looks + 10:
            time.sleep(0.001)
        assert thread.is_alive()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self.slices.begin, daemon=True)
        thread.start()
        return thread

    def _join(self, thread: threading.Thread) -> None:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "time-slices"
    file.write_bytes(bytes(TABLE_BYTES))
    return file


@pytest.fixture
def bench(file: Path) -> Bench:
    return Bench(file)


@pytest.mark.parametrize(
    ("used", "others", "takes_device", "keeps_device"),
    [
        (9.0, [], True, True),
        (1.0, [2.0], True, True),
        (2.0, [2.0], True, True),
        (2.0 + SLICE_SECONDS / 2, [2.0], False, True),
        (2.0 + SLICE_SECONDS, [2.0], False, True),
        (2.0 + SLICE_SECONDS * 1.01, [2.0], False, False),
        (2.0, [9.0, 1.0], False, False),
        (1.0, [9.0, 1.0], True, True),
    ],
)
def test_the_engine_that_computed_least_is_next(
    used: float, others: list[float], *, takes_device: bool, keeps_device: bool
) -> None:
    assert may_compute(used, others, has_device=False) == takes_device
    assert may_compute(used, others, has_device=True) == keeps_device


def test_an_engine_alone_never_waits_and_shows_when_it_works(bench: Bench) -> None:
    assert not bench.slices.contended
    bench.begin()
    bench.now += 2.5
    bench.begin()
    assert bench.slot(0) == (1002.5, 2.5)
    assert not bench.slices.contended
    bench.slices.end()
    assert bench.slot(0) == (0.0, 2.5)


def test_a_pause_is_no_claim_and_no_debt(bench: Bench) -> None:
    bench.begin()
    bench.now += 2.5
    bench.begin()
    bench.slices.end()
    bench.now += 60
    bench.work(1, used=0.5)
    bench.work(2, used=0.25)
    bench.begin()
    assert bench.slot(0) == (1062.5, 0.25)
    bench.slices.end()
    bench.table[2] = bench.table[4] = 0.0
    bench.begin()
    assert bench.slot(0) == (1062.5, 0.0)


def test_an_engine_that_is_a_slice_ahead_waits_until_it_is_not(bench: Bench) -> None:
    bench.work(1, used=5.0)
    bench.begin()
    assert bench.slices.contended
    bench.now += SLICE_SECONDS * 0.9
    bench.begin()
    bench.now += SLICE_SECONDS * 0.9
    with bench.waiting():
        bench.now += 1
        bench.work(1, used=5.1)
    assert bench.slot(0) == pytest.approx((1001 + 1.8 * SLICE_SECONDS, 5 + 1.8 * SLICE_SECONDS))


def test_waiting_is_no_computing(bench: Bench) -> None:
    bench.work(1, used=5.0)
    bench.begin()
    bench.now += 1
    with bench.waiting():
        bench.now += 2
        bench.work(1, used=7.0)
    bench.now += 0.5
    bench.begin()
    assert bench.slot(0)[1] == pytest.approx(6.5)


def test_the_device_is_free_for_others_while_an_engine_waits(bench: Bench) -> None:
    bench.work(1, used=5.0)
    bench.begin()
    bench.now += 1
    with bench.waiting() as thread, locked(bench.file, DEVICE):
        bench.work(1, used=7.0)
        bench.expect_waiting(thread)


def test_the_device_is_free_after_the_last_step(bench: Bench) -> None:
    bench.begin()
    with pytest.raises(AssertionError), locked(bench.file, DEVICE):
        pass
    bench.slices.end()
    with locked(bench.file, DEVICE):
        pass


def test_an_engine_without_work_is_not_waited_for_even_if_it_has_the_device(bench: Bench) -> None:
    with locked(bench.file, DEVICE):
        bench.begin()
        assert not bench.slices.contended


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        (-PATIENCE_SECONDS, False),
        (-PATIENCE_SECONDS + 0.5, True),
        (PATIENCE_SECONDS - 0.5, True),
        (PATIENCE_SECONDS, False),
    ],
    ids=["it may hang", "its step is long", "it has begun since", "before the machine's last start"],
)
def test_an_engine_counts_if_it_was_seen_lately(seen: float, counts: bool, bench: Bench) -> None:
    bench.work(ENGINES - 1, used=5.0, seen=bench.now + seen)
    bench.begin()
    assert bench.slices.contended == counts


def test_an_engine_takes_the_first_free_slot(file: Path) -> None:
    with locked(file, 0, 1):
        bench = Bench(file)
        bench.begin()
        bench.begin()
    assert not bench.slices.contended
    bench.slices.end()
    bench.work(5, used=0.5)
    bench.begin()
    assert bench.slot(2) == (1000.0, 0.5)
    with locked(file, 3):
        pass


def test_no_more_engines_than_slots_take_turns(file: Path) -> None:
    with locked(file, *range(ENGINES)):
        with pytest.raises(OSError, match="16 engines use it"):
            TimeSlices(file)
        assert open_time_slices(file.parent) is None


def test_a_slot_of_a_dead_engine_has_no_work(file: Path) -> None:
    dead = Bench(file)
    dead.begin()
    dead.now += 1
    dead.begin()
    assert Bench(file).slot(0) == (0.0, 1.0)


def test_the_file_is_private_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert open_time_slices(home) is not None
    file = home / "time-slices"
    assert (file.stat().st_mode & 0o777, home.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.read_bytes() == bytes(TABLE_BYTES)
    Bench(file).work(1, used=5.0)
    bench = Bench(file)
    bench.begin()
    assert bench.slices.contended
