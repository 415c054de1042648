import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from service.settings import Settings

LOOK_SECONDS = 5.0


class KeepAwake:
    """Keeps a Mac from sleeping while it is held, and does nothing where macOS's `caffeinate` is missing."""

    def __init__(self) -> None:
        self._program = shutil.which("caffeinate")
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def holds(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def hold(self) -> None:
        if self.holds or self._program is None:
            return
        # -w: it ends with this process. Its own session keeps the terminal's Ctrl-C from it.
        command = [self._program, "-i", "-w", str(os.getpid())]
        with suppress(OSError):
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603

    def release(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait()
            self._child = None

    async def follow(self, busy: Callable[[], bool], look_seconds: float = LOOK_SECONDS) -> None:
        """Holds while `busy`, until it is cancelled."""
        try:
            while self._program is not None:
                if busy():
                    self.hold()
                else:
                    self.release()
                await asyncio.sleep(look_seconds)
        finally:
            self.release()


async def stay_awake(settings: Settings, busy: Callable[[], bool]) -> None:
    if settings.keep_awake:
        await KeepAwake().follow(busy)


@contextmanager
def kept_awake(settings: Settings) -> Iterator[None]:
    awake = KeepAwake()
    if settings.keep_awake:
        awake.hold()
    try:
        yield
    finally:
        awake.release()
