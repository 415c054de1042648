"""Our own processes never import from the folder where the user works."""

import os
import subprocess
from pathlib import Path

import pytest

from service.own_python import OWN_FOLDER, own_environment, own_python


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose modules have the names of ours and of what we use. The working folder of the test."""
    for name in ("service", "click", "types", "msgspec"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working folder was imported')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("python_path", ["", ".", "{folder}", "{folder}/../{name}"])
def test_modules_of_the_working_folder_are_not_imported(hostile_folder: Path, python_path: str) -> None:
    value = python_path.format(folder=hostile_folder, name=hostile_folder.name)
    environment = own_environment({**os.environ, "PYTHONPATH": os.pathsep.join([value, str(OWN_FOLDER)])})
    command = own_python("-c", "import click, msgspec, service, types; print(service.__file__)")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).is_relative_to(OWN_FOLDER)


def test_other_folders_stay_on_the_path(hostile_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = str(tmp_path_factory.mktemp("elsewhere"))
    assert own_environment({"PYTHONPATH": f"{elsewhere}::{hostile_folder}", "A": "b"}) == {
        "PYTHONPATH": elsewhere,
        "A": "b",
    }
    assert own_environment({"PYTHONPATH": str(hostile_folder)}) == {}


def test_the_folder_of_this_package_stays_on_the_path_also_while_we_work_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(OWN_FOLDER)
    assert own_environment({"PYTHONPATH": str(OWN_FOLDER)}) == {"PYTHONPATH": str(OWN_FOLDER)}
