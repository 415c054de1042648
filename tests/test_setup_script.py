"""scripts/setup-vllm-mlx-venv.sh decides whether anything is to be installed."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "setup-vllm-mlx-venv.sh"
INPUTS = (ROOT / "pyproject.toml", ROOT / "constraints.txt", SCRIPT)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment that was set up with the extras test and bench. Its pip fails with exit code 3."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("python", 'case "$*" in *"pip install"*) exit 3; esac'), ("anyclaude", "")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "pyvenv.cfg").write_text("")
    first = f"extras=test,bench project={ROOT} python=\n"
    (tmp_path / ".anyclaude-setup").write_text(first + "".join(path.read_text() for path in INPUTS))
    return tmp_path


def run(environment: Path, extras: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"VENV": str(environment), "EXTRAS": extras, "PYTHON": ""}
    return subprocess.run([SCRIPT], env=variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("extras", ["", "test", "bench,test"])
def test_an_environment_with_more_extras_is_up_to_date(environment: Path, extras: str) -> None:
    done = run(environment, extras)
    assert (done.returncode, done.stdout) == (0, f"{environment} is up to date.\n")


def test_a_new_extra_is_added_to_those_that_are_there(environment: Path) -> None:
    done = run(environment, "redis")
    assert "installing anyclaude[test,bench,redis]" in done.stdout
    assert "pip could not install" in done.stderr
    assert done.returncode == 1
