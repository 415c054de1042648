import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from service.models.progress import ConsoleProgress, Silent, watch_growth
from tests.patience import PATIENCE_SECONDS


def shown(*, terminal: bool) -> str:
    output = io.StringIO()
    progress = ConsoleProgress(Console(file=output, force_terminal=terminal, width=80, _environ={}))
    progress.step("Fetching [it]")
    for done in (0, 30, 60, 100):
        progress.advance(done * 10**6, 100 * 10**6)
    progress.step("Converting it")
    progress.finish()
    return output.getvalue()


def test_a_log_gets_a_line_at_every_quarter() -> None:
    assert shown(terminal=False).splitlines() == [
        "Fetching [it]",
        "  25% of 100.0 MB",
        "  50% of 100.0 MB",
        "  100% of 100.0 MB",
        "Converting it",
    ]


def test_a_terminal_gets_a_bar() -> None:
    text = shown(terminal=True)
    assert "100.0/100.0 MB" in text
    assert "25% of" not in text


class FirstGrowth(Silent):
    """Waits for something to have arrived."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.grown = threading.Event()

    def advance(self, done_bytes: int, total_bytes: int) -> None:
        self.seen.append((done_bytes, total_bytes))
        if done_bytes:
            self.grown.set()


@pytest.mark.parametrize(("arrived", "reported"), [(300, 300), (5000, 1000)])
def test_growth_is_reported_up_to_the_total(arrived: int, reported: int, tmp_path: Path) -> None:
    progress = FirstGrowth()
    with watch_growth(tmp_path, 1000, progress):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "file").write_bytes(b"x" * arrived)
        assert progress.grown.wait(PATIENCE_SECONDS)
    assert progress.seen[-1] == (reported, 1000)
