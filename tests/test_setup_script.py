"""scripts/setup-vllm-mlx-venv.sh decides whether anything is to be installed."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

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


def run(environment: Path, extras: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"VENV": str(environment), "EXTRAS": extras, "PYTHON": "", "PATH": path}
    return subprocess.run([SCRIPT], env=variables, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("extras", ["", "test", "bench,test"])
def test_an_environment_with_more_extras_is_up_to_date(environment: Path, extras: str) -> None:
    done = run(environment, extras)
    assert (done.returncode, done.stdout) == (0, f"{environment} is up to date.\n")


def test_a_new_extra_is_added_to_those_that_are_there(environment: Path) -> None:
    done = run(environment, "redis")
    assert "installing anyclaude[test,bench,redis]" in done.stdout
    assert "pip could not install" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("on_path", [False, True])
def test_a_new_environment_names_the_way_to_the_path(environment: Path, on_path: bool) -> None:
    programs = environment / "bin"
    (programs / "python").write_text("#!/bin/sh\n")
    (environment / ".anyclaude-setup").unlink()
    before = f"{programs}{os.pathsep}" if on_path else ""
    done = run(environment, "", before + os.environ["PATH"])
    assert f"Start the server with: {programs}/anyclaude serve" in done.stdout
    assert (f". {programs}/activate" in done.stdout) is not on_path
    assert (f"ln -s {programs}/anyclaude ~/.local/bin/anyclaude" in done.stdout) is not on_path


def test_make_run_installs_no_tools_and_takes_a_model_and_a_port() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "run", "MODEL=org/name", "PORT=9000"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "ARGS"))},
        capture_output=True,
        text=True,
        check=True,
    )
    set_up, serve = done.stdout.splitlines()
    assert set_up.endswith("scripts/setup-vllm-mlx-venv.sh")
    assert "EXTRAS" not in set_up
    assert serve.endswith('anyclaude" serve "org/name" --port "9000" ')
