"""`anyclaude serve --distributed`, where it cannot be."""

from pathlib import Path

import pytest

from tests.cli.terminal import Terminal


def test_outside_of_the_launcher_the_command_is_shown(terminal: Terminal) -> None:
    terminal.configure(executor="mlx")
    done = terminal.run("serve", "--distributed")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: --distributed works only in processes that mlx.launch starts. "
        "Run: mlx.launch -n 3 --backend ring -- anyclaude serve --distributed [MODEL]\n"
    )


@pytest.mark.parametrize("settings", [{"executor": "scripted"}, {"executor": "mlx", "replay": "answers.jsonl"}])
def test_it_is_for_models_alone(terminal: Terminal, settings: dict[str, str]) -> None:
    terminal.configure(**settings)
    done = terminal.run("serve", "--distributed")
    assert done.returncode == 78
    assert done.stderr == "Error: --distributed runs a model: leave out --replay, and the scripted executor.\n"


def test_a_way_to_divide_that_is_none_is_refused(terminal: Terminal) -> None:
    done = terminal.run("serve", "--distributed", "--parallel", "both")
    assert done.returncode == 78
    assert '--parallel: expected "pipeline" or "tensor" or null, found "both"' in done.stderr


def test_ranks_that_do_not_meet_say_so(terminal: Terminal, tmp_path: Path) -> None:
    terminal.configure(executor="mlx")
    terminal.environment |= {"MLX_RANK": "0", "MLX_HOSTFILE": str(tmp_path / "none")}
    done = terminal.run("serve", "--distributed")
    assert done.returncode == 69
    assert done.stderr.splitlines()[-1].startswith("Error: The ranks did not meet: ")
