import subprocess
import sys

# The pipe ends when the kernel has ended the process that holds its other end, whatever that process was doing.
SCRIPT = 'read -r _ || kill -9 "$0"'


def kernel_ends_orphans() -> bool:
    # There, a process can ask to be killed with its parent.
    return sys.platform.startswith("linux")


class OrphanGuard:
    """A shell that kills a process as soon as this process is gone."""

    def __init__(self, pid: int) -> None:
        self._shell = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", SCRIPT, str(pid)],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def stand_down(self) -> None:
        """Call it once the guarded process has ended: its number may become another's."""
        self._shell.communicate(b"\n")
