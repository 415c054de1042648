"""A server that the launcher starts in the background, shared by all launchers of one address.

Locks on files below `run/` keep order between processes, and end with the process that holds them:

- `PORT.order` is held while somebody looks, starts or stops, so that two launchers never start two servers;
- `PORT.server` is held by the server itself, through an inherited descriptor, and holds its process id: while the
  lock is taken, the id is the server's and nobody else's;
- `PORT.users` is held, shared, by every launcher whose Claude Code runs on the server. The last to leave stops it.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from service.own_python import own_environment, own_python
from service.settings import Settings
from service.storage import FILE_MODE, locked, private_folder

POLL_SECONDS = 0.05
STOP_MARGIN_SECONDS = 5.0
TAIL_BYTES = 16 * 1024


class BackgroundServer:
    """The background server of one address; there may be none. Not for use by several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run = private_folder(settings.home / "run")
        self.log = private_folder(settings.home / "logs") / f"server-{settings.port}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._use: int | None = None

    def order(self, on_wait: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """While held, no other launcher starts or stops the server. Waits for its turn, and calls `on_wait` then."""
        return locked(self._lock_file("order"), on_wait)

    def start(self) -> None:
        """Starts it in a session of its own: the terminal's signals are for Claude Code. Call it within `order`."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        lock = self._open("server")
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter
                own_python("-m", "service.cli", "serve"),
                env=own_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
            )
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(self._child.pid).encode(), 0)
        finally:
            os.close(lock)
            os.close(log)

    def exit_code(self) -> int | None:
        """Of the server started here; None while it runs, or when it was not started here."""
        return None if self._child is None else self._child.poll()

    def join(self) -> None:
        """Counts this launcher among the users. Call it within `order`."""
        self._use = self._open("users")
        fcntl.flock(self._use, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Stops the server if a launcher started it and nobody else uses it."""
        with self.order():
            use, self._use = self._use, None
            if use is None:
                return
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            finally:
                os.close(use)
            self.stop()

    def stop(self) -> None:
        """SIGTERM, time for running answers to end, then SIGKILL. Nothing when no launcher has started it."""
        pid = self._pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                if not self._gone(self._settings.shutdown_grace_seconds + STOP_MARGIN_SECONDS):
                    os.kill(pid, signal.SIGKILL)
                    self._gone(STOP_MARGIN_SECONDS)
        if self._child is not None:
            self._child.wait()

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the server's log that say something."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def _pid(self) -> int | None:
        descriptor = self._open("server")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0)
            return int(text) if text.isdigit() else None
        else:
            return None
        finally:
            os.close(descriptor)

    def _gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _open(self, name: str) -> int:
        return os.open(self._lock_file(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def _lock_file(self, name: str) -> Path:
        return self._run / f"{self._settings.port}.{name}"
