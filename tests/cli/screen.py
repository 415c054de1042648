"""A command in a terminal of its own: what it shows, and a keyboard."""

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.cli.terminal import Terminal

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Screen:
    """`shown` is everything that was written, without control sequences."""

    def __init__(self, pid: int, descriptor: int, patience_seconds: float) -> None:
        self.shown = ""
        self.code: int | None = None
        self._seen = 0
        self._pid = pid
        self._descriptor = descriptor
        self._patience = patience_seconds

    def until(self, text: str) -> None:
        """Waits for `text`, behind the text of the last call."""
        deadline = time.monotonic() + self._patience
        while (found := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"waited in vain for {text!r}:\n{self.shown}"
            assert self._read(), f"ended before {text!r}:\n{self.shown}"
        self._seen = found + len(text)

    def type(self, line: str) -> None:
        self.write(f"{line}\n")

    def write(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self._descriptor, b"\x03")

    def end(self) -> int:
        """Waits for the end of the command. Returns its exit code."""
        while self._read():
            pass
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.code

    def close(self) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            self.end()
        os.close(self._descriptor)

    def _read(self) -> bool:
        """False at the end."""
        ready, *_ = select.select([self._descriptor], [], [], self._patience)
        assert ready, f"nothing came for {self._patience:g} s:\n{self.shown}"
        try:
            chunk = os.read(self._descriptor, 4096)
        except OSError:  # the command has closed its terminal
            return False
        self.shown += CONTROLS.sub("", chunk.decode(errors="replace"))
        return bool(chunk)


@contextmanager
def on_screen(terminal: Terminal, *arguments: str, **variables: str) -> Iterator[Screen]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(terminal.cwd)
        environment = terminal.environment | {"TERM": "xterm"} | variables
        os.execve(terminal.command()[0], terminal.command(*arguments), environment)  # noqa: S606
    screen = Screen(pid, descriptor, terminal.patience_seconds)
    try:
        yield screen
    finally:
        screen.close()
