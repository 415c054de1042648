import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import msgspec

from service.agents.process import with_folder_of
from service.agents.table import AGENTS
from service.cli.checks import Result, failed, ok, warning
from service.cli.checks.device import computes_on
from service.device.figures import DeviceFigures
from service.device.machine import DEVICE_VARIABLE
from service.own_python import own_environment, own_python

SETUP = "Run 'make setup', or scripts/setup-vllm-mlx-venv.sh."
OLDEST_PYTHON = (3, 11)
CHILD_SECONDS = 60
TRIED_CLAUDE = (2, 1)


def python() -> Result:
    found = f"{platform.python_version()} ({platform.machine()}, {own_python()[0]})"
    if sys.version_info < OLDEST_PYTHON:
        return failed("Python", found, f"Python 3.11 or newer is needed. {SETUP}")
    return ok("Python", found)


def mlx() -> tuple[Result, DeviceFigures | None]:
    """Reads the device in a process of its own, because a wheel for another processor kills it."""
    try:
        versions = f"mlx {version('mlx')}, mlx-lm {version('mlx-lm')}"
    except PackageNotFoundError as exc:
        return failed("MLX", f"{exc.name} is not installed", SETUP), None
    code, said = _run(own_python("-m", "service.executor.loading.device"), own_environment())
    last = said.splitlines()[-1] if said else f"exit code {code}"
    if code != 0:
        return failed("MLX", f"{versions} does not work: {last}", f"Install it again for this machine. {SETUP}"), None
    figures = msgspec.json.decode(last, type=DeviceFigures)
    return computes_on(figures, versions, os.environ.get(DEVICE_VARIABLE)), figures


def blas() -> Result:
    """MLX on Linux multiplies matrices with BLAS. macOS has its own."""
    if sys.platform != "linux":
        return ok("BLAS", "Accelerate, part of macOS")
    from service.models.blas import load_openblas

    report = load_openblas()
    if report.active:
        return ok("BLAS", report.detail)
    found, _, advice = report.detail.partition(". ")
    return warning("BLAS", found, advice)


def claude_code() -> Result:
    agent = AGENTS["claude"]
    path, install = agent.find(os.environ), agent.install
    if path is None:
        return warning("Claude Code", agent.missing, f"API clients work without it. Install: {install}")
    code, said = _run([path, "--version"], with_folder_of(path, own_environment()))
    first = said.splitlines()[0] if said else ""
    if code != 0:
        return failed("Claude Code", f"{path} does not start: {first or f'exit code {code}'}", f"Reinstall: {install}")
    if _version(first) < TRIED_CLAUDE:
        return warning("Claude Code", f"{first} ({path})", f"Tried with 2.1 and newer. Update: {install}")
    return ok("Claude Code", f"{first} ({path})")


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, or the user's claude
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHILD_SECONDS,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end after {CHILD_SECONDS} s"
    except OSError as exc:
        return -1, str(exc.strerror)
    return done.returncode, done.stdout.strip()


def _version(text: str) -> tuple[int, ...]:
    """`2.1.197 (Claude Code)` gives (2, 1, 197). Other text gives (), which is older than any version."""
    numbers = text.split()[0].split(".") if text.split() else []
    return tuple(int(number) for number in numbers if number.isdigit())
