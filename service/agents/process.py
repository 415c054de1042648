import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


def with_folder_of(program: str, environ: Mapping[str, str]) -> dict[str, str]:
    # npm's programs begin with `#!/usr/bin/env node`, and `node` is in the same folder. The PATH of an IDE or of
    # launchd may lack it.
    path, folder = environ.get("PATH", os.defpath), str(Path(program).parent)
    return dict(environ) if folder in path.split(os.pathsep) else {**environ, "PATH": path + os.pathsep + folder}


def run_agent(command: list[str], environ: Mapping[str, str]) -> int:
    """Runs in the foreground. Returns the exit code, or 128 plus a signal's number."""
    child = subprocess.Popen(command, env=dict(environ))  # noqa: S603 - what the user asked to run
    with _signals_to(child):
        while True:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            # The user suspended the agent. The shell waits for this process, so it stops too, and wakes the agent
            # afterwards.
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child.pid, signal.SIGCONT)
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    return 128 - code if code < 0 else code


@contextmanager
def _signals_to(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Forwards SIGTERM and SIGHUP, and without a terminal SIGINT and SIGQUIT. A terminal sends these to the whole
    foreground group."""

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def leave_to_terminal(number: int, frame: FrameType | None) -> None:
        if not _in_foreground():
            forward(number, frame)

    handlers = {
        signal.SIGTERM: forward,
        signal.SIGHUP: forward,
        signal.SIGINT: leave_to_terminal,
        signal.SIGQUIT: leave_to_terminal,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
