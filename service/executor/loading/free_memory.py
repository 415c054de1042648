import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes() -> int | None:
    """Bytes usable without swapping, within a container's limit; None if unknown."""
    if not sys.platform.startswith("linux"):
        return None
    free = _field(Path("/proc/meminfo"), "MemAvailable:")
    left = container_memory_bytes(CGROUP)
    return None if free is None else min(free * 1024, free * 1024 if left is None else left)


def container_memory_bytes(cgroup: Path) -> int | None:
    """Bytes left of a control group's limit (version 2), if it has one. Droppable file pages count as free."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - used + (_field(cgroup / "memory.stat", "inactive_file") or 0))


def _field(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if words[:1] == [name]), None)
