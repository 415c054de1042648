import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from service.storage import folder_bytes

POLL_SECONDS = 0.2


class ProgressReport(Protocol):
    """One thread at a time calls it, not always the same."""

    def step(self, text: str) -> None:
        """Begins a stage and ends the one before."""
        ...

    def advance(self, done_bytes: int, total_bytes: int) -> None: ...

    def finish(self) -> None: ...


class Silent:
    def step(self, text: str) -> None:
        return None

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        return None

    def finish(self) -> None:
        return None


class ConsoleProgress:
    """Prints a line for each stage, with a bar on a terminal, or a line at every quarter in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._quarters = 0

    def step(self, text: str) -> None:
        self.finish()
        self._console.print(text, highlight=False, markup=False)

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        if self._console.is_terminal:
            self._draw(done_bytes, total_bytes)
        else:
            self._print_quarters(done_bytes, total_bytes)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
        self._quarters = 0

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None or self._task is None:
            columns = (TextColumn("  "), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def _print_quarters(self, done: int, total: int) -> None:
        quarters = 4 * done // max(total, 1)
        if quarters > self._quarters:
            self._quarters = quarters
            self._console.print(f"  {25 * quarters}% of {decimal(total)}", highlight=False, markup=False)


@contextmanager
def watch_growth(folder: Path, total_bytes: int, progress: ProgressReport) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            progress.advance(min(folder_bytes(folder), total_bytes), total_bytes)

    watcher = threading.Thread(target=watch, name="download progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
