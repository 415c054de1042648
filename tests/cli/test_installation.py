"""From the built wheel to the first answer: a new home, a new environment, and no repository in sight."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.installation import install_wheel
from tests.cli.terminal import ENGINE_VARIABLES
from tests.patience import PATIENCE_SECONDS
from tests.ports import free_port

COMMANDS = (("run", "demo", "What is the capital of France?"),)
"""What a user types after `pip install`."""


@pytest.mark.model
def test_one_command_leads_from_the_wheel_to_the_first_answer(tmp_path: Path, demo_model: Path) -> None:
    script = install_wheel(tmp_path)
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    # The package that the demo model is made of is not fetched again; `models/test_demo.py` tests that.
    shutil.copytree(demo_model, home / ".anyclaude" / "models" / demo_model.name)
    (home / ".anyclauderc.json").write_text(f'{{"backends": {{"vllm-mlx": {{"port": {free_port()}}}}}}}')
    started = time.monotonic()
    for arguments in COMMANDS:
        done = subprocess.run(
            [str(script), *arguments],
            cwd=work,
            env={"HOME": str(home), "PATH": os.defpath, **ENGINE_VARIABLES},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    seconds = time.monotonic() - started
    print(f"{len(COMMANDS)} command, {seconds:.1f} s to the first answer")  # noqa: T201 - shown with `pytest -rP`
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n"), done.stderr
    assert not list(work.iterdir())
