"""An engine process writes its log to stderr as marked lines, which the server turns back into records. It logs other
lines, such as a C++ library's last words, unchanged."""

import logging
import sys
from collections.abc import Callable

import msgspec

from service.logs import OURS

MARK = "\x1e"  # ASCII "record separator", which no text of a library contains
Line = tuple[float, int, str, str, str]  # time, level, logger, message, traceback


class MarkedLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        line: Line = (record.created, record.levelno, record.name, record.getMessage(), traceback)
        return MARK + msgspec.json.encode(line).decode()


def write_marked_lines(*, debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MarkedLines())
    logging.getLogger().addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)


def read_marked_line(line: str) -> logging.LogRecord | None:
    if not line.startswith(MARK):
        return None
    try:
        created, level, name, message, traceback = msgspec.json.decode(line[len(MARK) :], type=Line)
    except msgspec.MsgspecError:  # the process was killed while it wrote the line
        return None
    record = logging.LogRecord(name, level, "", 0, message, None, None)
    record.created, record.msecs = created, created % 1 * 1000
    record.exc_text = traceback or None
    return record


class LineSplitter:
    """Passes lines to `take` without their ends. Cuts lines after `longest` bytes."""

    def __init__(self, take: Callable[[str], None], longest: int = 64 * 1024) -> None:
        self._take = take
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > self._longest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line.strip():
                self._take(line.decode(errors="replace"))

    def end(self) -> None:
        self.feed(b"\n")
