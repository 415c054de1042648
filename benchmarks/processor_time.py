"""Processor time is steadier than wall time on a machine that others use, too."""

import psutil


def processor_seconds(pid: int) -> float:
    """User and system time of a process and of those below it, such as the engine process."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))
