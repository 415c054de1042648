import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.points import IN_WRITES
from tests.crash.works import DATABASES, FETCHES, HUB_FILES, WORKS
from tests.models.hub_server import Hub, serve_hub
from tests.patience import PATIENCE_SECONDS

FAULTS = ("kill", "full disk", "read-only", *IN_WRITES)
# A fetch has about a hundred points, and its client takes long to start.
SOME = 9


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub(HUB_FILES) as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", WORKS)
def test_an_end_at_any_point_leaves_nothing_wrong(name: str, fault: str, hub: Hub, tmp_path: Path) -> None:
    end_at_points(name, fault, SOME if name in FETCHES and fault not in IN_WRITES else 1, hub, tmp_path)


@pytest.mark.endurance
@pytest.mark.parametrize("fault", FAULTS)
def test_an_end_at_every_point_of_a_fetch_leaves_nothing_wrong(fault: str, hub: Hub, tmp_path: Path) -> None:
    end_at_points(*FETCHES, fault, 1, hub, tmp_path)


@pytest.mark.parametrize("name", sorted(WORKS.keys() - DATABASES))
def test_a_power_failure_at_any_point_leaves_nothing_wrong(name: str, hub: Hub, tmp_path: Path) -> None:
    lose_power(name, SOME if name in FETCHES else 1, hub, tmp_path)


@pytest.mark.endurance
def test_a_power_failure_at_every_point_of_a_fetch_leaves_nothing_wrong(hub: Hub, tmp_path: Path) -> None:
    lose_power(*FETCHES, 1, hub, tmp_path)


def end_at_points(name: str, fault: str, every: int, hub: Hub, folder: Path) -> None:
    run("tests.crash.points", name, fault, every, hub=hub, folder=folder)


def lose_power(name: str, every: int, hub: Hub, folder: Path) -> None:
    run("tests.crash.power", name, every, hub=hub, folder=folder)


def run(module: str, *arguments: object, hub: Hub, folder: Path) -> None:
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"}
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments), str(folder)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
