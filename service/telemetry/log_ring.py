import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from service.logs import OURS

MOST_LINES = 500
LONGEST_LINE = 1_000


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """`time` is in Unix seconds."""

    number: int
    time: float
    level: str
    logger: str
    text: str


class LogRing(logging.Handler):
    """Keeps the last lines of the log, without tracebacks, whose messages may quote a request."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)  # details may quote a request
        self._lines: deque[LogLine] = deque(maxlen=MOST_LINES)
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._count += 1
        line = LogLine(
            number=self._count,
            time=round(record.created, 3),
            level=record.levelname,
            logger=record.name.removeprefix("anyclaude.").removeprefix("service."),
            text=record.getMessage()[:LONGEST_LINE],
        )
        self._lines.append(line)

    def after(self, number: int) -> list[LogLine]:
        return [line for line in self._lines if line.number > number]

    @contextmanager
    def attached(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in OURS]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)
