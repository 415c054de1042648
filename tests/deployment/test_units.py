"""The units for systemd and launchd start what there is, and stop it as it wants to be stopped."""

import configparser
import plistlib
from pathlib import Path

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


def test_launchd() -> None:
    job = plistlib.loads((DEPLOY / "launchd" / "anyclaude.plist").read_bytes())
    check_command(job["ProgramArguments"])
    assert job["ExitTimeOut"] > GRACE_SECONDS
    assert job["Umask"] == 0o077
    assert job["KeepAlive"] == {"SuccessfulExit": False}
