"""The units for systemd and launchd start what there is, and stop it as it wants to be stopped."""

import configparser
import plistlib
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import anyclaude
from service.cli.exits import Exit
from service.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
GRACE_SECONDS = Settings(home=Path()).shutdown_grace_seconds


def check_command(words: list[str]) -> None:
    program, *arguments = words
    assert program.endswith("/.venv-mlx/bin/anyclaude")
    known = CliRunner().invoke(anyclaude, [arguments[0], "--help"])
    assert known.exit_code == 0
    flags = [word for word in arguments if word.startswith("--")]
    assert flags
    assert [flag for flag in flags if flag not in known.output] == []


def test_systemd() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(DEPLOY / "systemd" / "anyclaude.service")
    service = unit["Service"]
    check_command(service["ExecStart"].split())
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == {
        Exit.NO_MODEL,
        Exit.PORT_IN_USE,
        Exit.CONFIG,
    }
    assert float(service["TimeoutStopSec"]) > GRACE_SECONDS


JOB = plistlib.loads((DEPLOY / "launchd" / "anyclaude.plist").read_bytes())


def test_launchd() -> None:
    shell, name, command = JOB["ProgramArguments"][:3], JOB["ProgramArguments"][3], JOB["ProgramArguments"][4:]
    assert (shell[:2], name) == (["/bin/sh", "-c"], "sh")
    check_command(command)
    assert JOB["ExitTimeOut"] > GRACE_SECONDS
    assert JOB["Umask"] == 0o077
    assert JOB["KeepAlive"] == {"SuccessfulExit": False}
    assert Path(JOB["StandardErrorPath"]).parent == Path("/Users/me/Library/Logs")


@pytest.mark.parametrize(
    ("code", "expected"), [(Exit.NO_MODEL, 0), (Exit.PORT_IN_USE, 0), (Exit.CONFIG, 0), (0, 0), (1, 1), (69, 69)]
)
def test_launchd_restarts_nothing_that_a_restart_does_not_mend(code: int, expected: int) -> None:
    command = [*JOB["ProgramArguments"][:4], "sh", "-c", f"exit {int(code)}"]
    assert subprocess.run(command, check=False).returncode == expected


def test_launchd_stops_the_server_and_waits_for_it() -> None:
    server = "trap 'sleep 0.2; echo ended; exit 0' TERM; echo started; while :; do sleep 0.05; done"
    with subprocess.Popen([*JOB["ProgramArguments"][:4], "sh", "-c", server], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "started\n"
        job.terminate()
        assert job.stdout.read() == "ended\n"
    assert job.returncode == 0
