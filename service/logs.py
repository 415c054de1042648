"""Log lines on stderr, as text or JSON. Text from clients can neither forge nor break a line."""

import json
import logging
import sys
import time
from typing import Any, TextIO

from service.settings import Settings

OURS = ("anyclaude", "service", "cache_backends")
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_BIDI)
}


def configure(settings: Settings, stream: TextIO | None = None, *, rank: int | None = None) -> None:
    """`rank` marks the lines of one of several processes. A second call replaces the first."""
    handler = ServiceHandler(sys.stderr if stream is None else stream)
    if rank is not None:
        handler.addFilter(_Ranked(rank))
    handler.setFormatter(JsonLines() if settings.log_format == "json" else Lines())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, ServiceHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if settings.debug_level else logging.INFO)


def escape_controls(text: str) -> str:
    return text.translate(_ESCAPES)


class ServiceHandler(logging.StreamHandler[TextIO]): ...


class _Ranked(logging.Filter):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def filter(self, record: logging.LogRecord) -> bool:
        record.rank = self._rank
        return True


class Lines(logging.Formatter):
    """`2025-01-31 12:00:00.123 INFO server: text` in UTC, then a traceback with a bar before each line. A rank follows
    the level: `INFO rank 1 server: text`."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("anyclaude.").removeprefix("service.")
        rank = f"rank {vars(record)['rank']} " if "rank" in vars(record) else ""
        lines = [f"{_time(record)} {record.levelname} {rank}{name}: {escape_controls(record.getMessage())}"]
        lines += [f"  | {escape_controls(line)}" for line in _traceback(self, record).split("\n") if line]
        return "\n".join(lines)


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _time(record).replace(" ", "T") + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {k: v for k, v in vars(record).items() if k not in _OWN_ATTRIBUTES and v is not None}
        if traceback := _traceback(self, record):
            fields["traceback"] = traceback
        # json does not escape DEL, but terminals act on it.
        return json.dumps(fields, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """`exc_text` is set if the record came from another process."""
    return record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else "")
