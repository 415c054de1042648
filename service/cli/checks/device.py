"""Checks of the device: what MLX computes on, the system of a Mac, and memory. They judge figures, so tests can use
those of any machine."""

import importlib.util
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version

import msgspec

from service.cli.checks import Result, failed, ok, warning
from service.device.figures import DeviceFigures
from service.device.machine import DEVICE_VARIABLE
from service.device.memory import (
    GB,
    LoadNeeds,
    load_refusal,
    longest_context,
    memory_in_words,
    raising,
    usable_bytes,
    with_raised_limit,
)
from service.own_python import own_python

OLDEST_MACOS = (14, 0)
# mlx's wheel for this macOS has kernels for the M5's matrix units.
MATRIX_WHEEL = (26, 0)


class MacFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`translated`: Rosetta runs this process. `wheel` is the macOS that mlx-metal's wheel was built for."""

    macos: tuple[int, ...]
    machine: str
    translated: bool
    wheel: tuple[int, ...]


class ModelNeeds(LoadNeeds, frozen=True, kw_only=True):
    """`context_length` is what the model and `contextLength` allow."""

    context_length: int


def read_mac() -> MacFacts | None:
    """Returns None on other systems."""
    if sys.platform != "darwin":
        return None
    # Python reports macOS 16 for 26 if it was built with an older SDK.
    return MacFacts(
        macos=_numbers(_output("sw_vers", "-productVersion") or platform.mac_ver()[0]),
        machine=platform.machine(),
        translated=_output("sysctl", "-n", "sysctl.proc_translated") == "1",
        wheel=_wheel(),
    )


def mac(facts: MacFacts, chip: str, reinstall: str) -> Result:
    found = f"macOS {_dotted(facts.macos)}, {chip or facts.machine}, mlx built for macOS {_dotted(facts.wheel) or '?'}"
    if facts.translated:
        return failed("Mac", f"{found}; Rosetta runs this Python", "Install a Python for arm64, and anyclaude with it.")
    if facts.machine != "arm64":
        return failed("Mac", f"{found}; an Intel processor", "MLX needs a Mac with Apple silicon.")
    if facts.macos < OLDEST_MACOS:
        return failed("Mac", found, f"MLX needs macOS {_dotted(OLDEST_MACOS)} or newer: update macOS.")
    if facts.wheel > facts.macos:
        return failed("Mac", found, f"mlx was built for a newer macOS. Install the one for this: {reinstall}")
    if facts.wheel and facts.wheel < MATRIX_WHEEL <= facts.macos and "M5" in chip:
        return warning("Mac", found, f"This mlx does not use the matrix units of an M5. Install it again: {reinstall}")
    return ok("Mac", found)


def reinstall_wheel() -> str:
    has_pip = importlib.util.find_spec("pip") is not None
    try:
        requirement = f"mlx-metal=={version('mlx-metal')}"
    except PackageNotFoundError:
        requirement = "mlx-metal"
    return reinstallation(requirement, own_python()[0], has_pip=has_pip)


def reinstallation(requirement: str, python: str, *, has_pip: bool) -> str:
    """Returns a shell command. `uv tool install` makes environments without pip."""
    pip = [python, "-m", "pip", "install", "--force-reinstall", "--no-deps", "--no-cache-dir"]
    uv = ["uv", "pip", "install", "--python", python, "--reinstall", "--no-deps", "--no-cache"]
    # Without the variable, a Python that was built with an older SDK takes the wheel for an older macOS.
    return f"SYSTEM_VERSION_COMPAT=0 {shlex.join([*(pip if has_pip else uv), requirement])}"


def computes_on(figures: DeviceFigures, versions: str, asked: str | None) -> Result:
    name = f" ({figures.name})" if figures.name else ""
    if figures.kind == "cpu" and asked == "cpu":
        found = f"{versions}, on the CPU{name}, as {DEVICE_VARIABLE}=cpu demands"
        if figures.system != "darwin":
            return ok("MLX", found)
        return warning("MLX", found, f"To use the GPU, unset {DEVICE_VARIABLE}.")
    if figures.kind == "cpu" and figures.system == "darwin":
        advice = "Use a terminal of the Mac itself, not a virtual machine or a container, and install mlx again."
        return failed("MLX", f"{versions}, on the CPU of a Mac{name}: Metal is not available", advice)
    device = {"metal": "the GPU, by Metal", "cuda": "the GPU, by CUDA", "cpu": "the CPU"}[figures.kind]
    return ok("MLX", f"{versions}, on {device}{name}")


def memory(figures: DeviceFigures, needs: ModelNeeds | None) -> Result:
    """`needs` is None if the model is not here yet."""
    found = memory_in_words(figures)
    if needs is None or usable_bytes(figures) is None:
        return ok("Memory", found)
    refusal = load_refusal(figures, needs)
    if refusal is not None:
        return failed("Memory", f"the model does not fit: {refusal}", "See above, or 'anyclaude models recommend'.")
    longest = longest_context(figures, needs)
    context = needs.context_length if longest is None else min(needs.context_length, longest)
    found += f". Beside weights of {needs.weight_bytes / GB:.1f} GB, a context of {context:,} tokens fits"
    if context < needs.context_length:
        found += f", of the model's {needs.context_length:,}"
        raised = with_raised_limit(figures)
        more = longest_context(raised, needs) or 0
        if more > context:
            found += f". {min(more, needs.context_length):,} fit if you raise Metal's limit {raising(raised)}"
    return ok("Memory", found)


def _wheel() -> tuple[int, ...]:
    try:
        lines = (distribution("mlx-metal").read_text("WHEEL") or "").splitlines()
    except PackageNotFoundError:
        return ()
    tags = [line.split()[-1] for line in lines if line.startswith("Tag: ") and "macosx_" in line]
    return max((wheel_macos(tag) for tag in tags), default=())


def wheel_macos(tag: str) -> tuple[int, ...]:
    """Returns (26, 0) for `py3-none-macosx_26_0_arm64`."""
    return tuple(int(word) for word in tag.partition("macosx_")[2].split("_")[:2])


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - macOS's
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(".") if word.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
