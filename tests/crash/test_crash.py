import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.points import IN_WRITES
from tests.crash.works import DATABASES, WORKS
from tests.patience import PATIENCE_SECONDS


@pytest.mark.parametrize("fault", ["kill", "full disk", "read-only", *IN_WRITES])
@pytest.mark.parametrize("name", WORKS)
def test_an_end_at_any_point_leaves_nothing_wrong(name: str, fault: str, tmp_path: Path) -> None:
    work = WORKS[name]
    command = [sys.executable, "-m", "tests.crash.points", name, fault, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    left = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))[:-1]
    assert left
    for folder in left:
        work.check(folder, whole=False)
        work.run(folder)
        work.check(folder, whole=True)


@pytest.mark.parametrize("name", sorted(WORKS.keys() - DATABASES))
def test_a_power_failure_at_any_point_leaves_nothing_wrong(name: str, tmp_path: Path) -> None:
    work = WORKS[name]
    command = [sys.executable, "-m", "tests.crash.power", name, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    left = list((tmp_path / "states").iterdir())
    assert len(left) > 4
    for folder in left:
        work.check(folder, whole=False)
        work.run(folder)
        work.check(folder, whole=True)
