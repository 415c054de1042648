import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.works import WORKS


@pytest.mark.parametrize("fault", ["kill", "full disk", "read-only"])
@pytest.mark.parametrize("name", WORKS)
def test_an_end_at_any_point_leaves_nothing_wrong(name: str, fault: str, tmp_path: Path) -> None:
    work = WORKS[name]
    command = [sys.executable, "-m", "tests.crash.points", name, fault, str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    left = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))[:-1]
    assert left
    for folder in left:
        work.check(folder, whole=False)
        work.run(folder)
        work.check(folder, whole=True)
