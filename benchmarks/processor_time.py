"""Processor time and page faults are steadier than wall time on a machine that others use, too."""

import sys
from pathlib import Path

import psutil


def processor_seconds(pid: int) -> float:
    """User and system time of a process and of those below it, such as the engine process."""
    times = [process.cpu_times() for process in _tree(pid)]
    return float(sum(each.user + each.system for each in times))


def page_faults(pid: int) -> int:
    """Page faults of a process and of those below it: each takes in memory that the process did not hold."""
    return sum(map(_faults, _tree(pid)))


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _faults(process: psutil.Process) -> int:
    if sys.platform == "darwin":
        return int(process.memory_info().pfaults)
    # proc_pid_stat(5): the name in parentheses is field 2, `minflt` 10 and `majflt` 12.
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])
