import math
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

from service.device.figures import DeviceFigures

CGROUP = Path("/sys/fs/cgroup")
CPU_QUOTA = CGROUP / "cpu.max"
SYSCTL = "/usr/sbin/sysctl"

# `cpu` keeps MLX off the GPU. MLX has no variable of its own for this.
DEVICE_VARIABLE = "ANYCLAUDE_DEVICE"


def read_machine(system: str = sys.platform) -> DeviceFigures:
    """Reads the system without loading MLX. `darwin` can be read elsewhere too: psutil lacks `wired` there."""
    return DeviceFigures(
        system=system,
        name=platform.machine(),
        cores=usable_cores(),
        total=total_bytes(),
        free=free_bytes(system),
        own=own_bytes(system),
        wired=wired_bytes(system),
    )


def usable_cores(cpu_quota: Path = CPU_QUOTA) -> int:
    # A container's quota (cgroup v2's `cpu.max`: microseconds of CPU time per period, or `max`) hides no cores of the
    # host, and a thread for each would wait for the others.
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = (float(field) for field in cpu_quota.read_text().split())
        return max(1, min(cores, math.ceil(quota / period)))
    except (OSError, ValueError):
        return cores


def total_bytes() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = container_limit_bytes(CGROUP)
    return physical if limit is None else min(physical, limit)


def free_bytes(system: str = sys.platform) -> int | None:
    """Returns the bytes usable without swapping, None if unknown."""
    if system == "darwin":
        import psutil

        return int(psutil.virtual_memory().available)
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    left = container_left_bytes(CGROUP)
    return None if free is None else min(free * 1024, free * 1024 if left is None else left)


def wired_bytes(system: str = sys.platform) -> int | None:
    if system != "darwin":
        return None
    import psutil

    return getattr(psutil.virtual_memory(), "wired", None)


def metal_limit_mib(system: str = sys.platform, sysctl: str = SYSCTL) -> int | None:
    """Returns `iogpu.wired_limit_mb`; 0 is the system's default, None unknown."""
    if system != "darwin":
        return None
    command = (sysctl, "-n", "iogpu.wired_limit_mb")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - macOS's
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(done.stdout) if done.stdout.strip().isdigit() else None


def own_bytes(system: str = sys.platform) -> int:
    if system == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if system == "darwin":
        import psutil

        return int(psutil.Process().memory_info().rss)
    return peak_bytes()


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2) counts in KiB on Linux


def container_limit_bytes(cgroup: Path) -> int | None:
    """Returns the limit of a control group (version 2), None without one."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit)
    except (OSError, ValueError):
        return None


def container_left_bytes(cgroup: Path) -> int | None:
    """Returns what is left of the limit, None without one. Droppable file pages count as free."""
    limit = container_limit_bytes(cgroup)
    try:
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit is None else max(0, limit - used + (_field(cgroup / "memory.stat", "inactive_file") or 0))


def _field(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if words[:1] == [name]), None)
