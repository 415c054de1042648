import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from service.executor.process.call_messages import CloseEngine, ToEngine, ToServer
from service.executor.process.frames import BadFrame, FrameReader, encode_frame
from service.executor.process.log_lines import LineSplitter, read_marked_line
from service.executor.process.orphan_guard import OrphanGuard, kernel_ends_orphans
from service.own_python import own_environment, own_python

log = logging.getLogger("anyclaude.engine")

KEPT_LINES = 200
FATAL = "Fatal Python error"  # faulthandler's first line; a stack of unknown length follows
# In a library's last line before it aborts: C++ exceptions on macOS (Metal's among them) and on Linux, and assertions.
ABORTS = ("libc++abi: ", "what():", "[METAL]", "Assertion ")

# A wait that takes this many times as long as asked: this process stood still, as in a paused container.
STOOD_STILL = 5

# Time for a process to exit after it closed its socket.
EXIT_SECONDS = 1.0

# Time to read stderr after the exit. A grandchild may hold the pipe open.
STDERR_SECONDS = 1.0


class Child(asyncio.Protocol):
    """`receive` is called with each frame's messages. `heard_at` is the loop's time of the last frame, or of the
    start."""

    def __init__(
        self, receive: Callable[[list[ToServer]], None], *, is_guarded: bool = not kernel_ends_orphans()
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._started_at = self._loop.time()
        self._receive = receive
        self._reader: FrameReader[ToServer] = FrameReader(list[ToServer])
        self._transport: asyncio.Transport | None = None
        self._closed = self._loop.create_future()
        self._killed_because = ""
        self._stderr = _Stderr()
        self._socket, theirs = socket.socketpair()
        with ExitStack() as undo, theirs:
            undo.callback(self._socket.close)
            # Its own group: Ctrl-C in a terminal goes to the server, which ends its engines in order. The server's
            # session: Linux compares niceness within a session only (autogroup).
            self._process = subprocess.Popen(  # noqa: S603
                own_python("-m", "service.executor.process", str(theirs.fileno()), str(os.getpid())),
                env=own_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
            undo.pop_all()
        self._guard = OrphanGuard(self.pid) if is_guarded else None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return self._loop.time() - self._started_at

    async def connect(self) -> None:
        await self._loop.connect_read_pipe(lambda: self._stderr, self._process.stdout)
        await self._loop.create_connection(lambda: self, sock=self._socket)

    def send(self, message: ToEngine) -> None:
        """Raises what `encode_frame` raises. Messages to an ending process are lost."""
        frame = encode_frame((message,))
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    @property
    def killed(self) -> bool:
        return bool(self._killed_because)

    def kill(self, because: str) -> None:
        if not self._closed.done():
            log.info("Engine process %d is killed: %s", self.pid, because)
            self._killed_because = self._killed_because or because
            self._process.kill()

    def close(self, seconds: float) -> None:
        """Kills the process unless it ends within `seconds`."""
        self.send(CloseEngine())
        self._loop.call_later(seconds, self.kill, "it did not end")

    def dump_threads(self) -> None:
        if not self._closed.done():
            self._process.send_signal(signal.SIGUSR1)

    async def until_closed(self, seconds: float | None = None) -> bool:
        """Returns whether the process closed its socket, as every end does, within `seconds`."""
        began = self._loop.time()
        await asyncio.wait({self._closed}, timeout=seconds)
        if seconds is not None and self._loop.time() - began > STOOD_STILL * seconds:
            self.heard_at = self._loop.time()  # it may have stood still as well
        if self._transport is not None and self._process.poll() is not None:
            self._transport.abort()  # a fork of the process may hold its end of the socket
        return self._closed.done()

    async def until_ended(self) -> str:
        await self.until_closed()
        try:
            await asyncio.to_thread(self._process.wait, EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._guard is not None:
            await asyncio.to_thread(self._guard.stand_down)
        await self._stderr.until_ended(STDERR_SECONDS)
        return self._killed_because or ending(self._process.returncode, self._stderr.last_lines)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except BadFrame as exc:
            self.kill(f"it sent a message that cannot be read: {exc}")
            return
        if messages:
            self.heard_at = self._loop.time()
            self._receive(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set_result(None)


class _Stderr(asyncio.Protocol):
    """Logs the lines of an engine process. Keeps the last unmarked lines and errors."""

    def __init__(self) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._lines = LineSplitter(self._take)
        self._ended = asyncio.get_running_loop().create_future()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._lines.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lines.end()
        self._ended.set_result(None)

    async def until_ended(self, seconds: float) -> None:
        await asyncio.wait({self._ended}, timeout=seconds)
        if self._transport is not None:
            self._transport.close()

    def _take(self, line: str) -> None:
        record = read_marked_line(line)
        if record is None:
            self.last_lines.append(line)
            log.warning("%s", line)
            return
        if record.levelno >= logging.ERROR:
            self.last_lines.append(record.getMessage())
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def ending(code: int, last_lines: Sequence[str]) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        how = f"it was killed by {name}"
    else:
        how = f"it ended with exit code {code}"
    last = _last_words(last_lines)
    return f"{how}: {last}" if last else how


def _last_words(lines: Sequence[str]) -> str:
    before = ""
    for line in lines:
        if line.startswith(FATAL):
            return before if any(words in before for words in ABORTS) else line
        before = line.strip()
    return before
