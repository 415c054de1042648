"""The background server of one address, shared by its launchers. File locks below `run/` order the processes. A lock
ends with the process that holds it.

- `PORT.order`: held while a launcher looks, starts or stops, so that two never start two servers
- `PORT.server`: held by the server, which inherits the descriptor; contains its process id
- `PORT.users`: shared by the launchers that use the server; the last one stops it
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import msgspec

from service.own_python import own_environment, own_python
from service.settings import Settings
from service.storage import FILE_MODE, locked, private_folder

POLL_SECONDS = 0.05
STOP_MARGIN_SECONDS = 5.0
TAIL_BYTES = 16 * 1024


class BackgroundServer:
    """Its server need not exist. `arguments` are for `serve`. Use it in one thread only."""

    def __init__(self, settings: Settings, arguments: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._arguments = arguments
        self._run = private_folder(settings.home / "run")
        self.log = self.log_file(settings.home, settings.port)
        private_folder(self.log.parent)
        self._child: subprocess.Popen[bytes] | None = None
        self._use: int | None = None

    @staticmethod
    def log_file(home: Path, port: int) -> Path:
        return home / "logs" / f"server-{port}.log"

    def order(self, on_wait: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Excludes other launchers from starting or stopping the server. `on_wait` is called if one does so now."""
        return locked(self._lock_file("order"), on_wait)

    def start(self) -> None:
        """The server gets its own session, because the terminal's signals are for the agent. Call it within `order`."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        lock = self._open("server")
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter
                own_python("-m", "service.cli", "serve", *self._arguments),
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
        """None while the server runs, or if it was not started here."""
        return None if self._child is None else self._child.poll()

    def join(self) -> None:
        self._use = self._open("users")
        fcntl.flock(self._use, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Stops the server unless another launcher uses it."""
        with self.order():
            use, self._use = self._use, None
            if use is None:
                return
            os.close(use)
            if not self.in_use():
                self.stop()

    def in_use(self) -> bool:
        use = self._open("users")
        try:
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(use)

    def stop(self) -> None:
        """Lets running answers end, then kills. Does nothing if no launcher started the server."""
        pid = self.pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                if not self._gone(self._settings.shutdown_grace_seconds + STOP_MARGIN_SECONDS):
                    os.kill(pid, signal.SIGKILL)
                    self._gone(STOP_MARGIN_SECONDS)
        if self._child is not None:
            self._child.wait()

    def log_tail(self, lines: int) -> list[str]:
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def pid(self) -> int | None:
        """None unless a server that a launcher started still runs."""
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
        while self.pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _open(self, name: str) -> int:
        return os.open(self._lock_file(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def _lock_file(self, name: str) -> Path:
        return self._run / f"{self._settings.port}.{name}"


def background_servers(settings: Settings) -> list[tuple[int, BackgroundServer]]:
    files = sorted((settings.home / "run").glob("*.server"))
    ports = [int(file.stem) for file in files if file.stem.isdigit()]
    found = [(port, BackgroundServer(msgspec.structs.replace(settings, port=port))) for port in ports]
    return [(port, server) for port, server in found if server.pid() is not None]
