"""What a log line looks like, and that nobody can forge one."""

import io
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.logs import configure, escape_controls
from service.settings import DebugLevel, LogFormat, Settings

logger = logging.getLogger("anyclaude.request")


pytestmark = pytest.mark.usefixtures("logging_restored")


def configured(level: DebugLevel = 0, log_format: LogFormat = "text") -> io.StringIO:
    stream = io.StringIO()
    configure(Settings(home=Path("/nowhere"), debug_level=level, log_format=log_format), stream)
    return stream


def test_a_line_for_people() -> None:
    stream = configured()
    logger.info("answered %d", 7)
    time, rest = stream.getvalue()[:23], stream.getvalue()[23:]
    assert rest == " INFO request: answered 7\n"
    assert time[10] == " "
    assert time.replace("-", "").replace(":", "").replace(".", "").replace(" ", "").isdigit()


def test_a_line_as_json_has_the_extra_fields() -> None:
    stream = configured(log_format="json")
    logger.warning("caf\u00e9 %s", "\u2028", extra={"cache": "hit", "error": None, "total_ms": 1.5})
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "WARNING",
        "logger": "anyclaude.request",
        "message": "caf\u00e9 \u2028",
        "cache": "hit",
        "total_ms": 1.5,
    }


@pytest.mark.parametrize(
    ("level", "lines"), [(0, ["info"]), (1, ["debug", "info", "debug"]), (2, ["debug", "info", "debug"])]
)
def test_levels(level: DebugLevel, lines: list[str]) -> None:
    stream = configured(level)
    logger.debug("debug")
    logger.info("info")
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("service.executor.loading.model").debug("debug")
    assert [line.rsplit(" ", 1)[1] for line in stream.getvalue().splitlines()] == lines


def test_configuring_twice_logs_once() -> None:
    first, second = configured(), configured()
    logger.info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_a_traceback_cannot_look_like_a_line() -> None:
    stream = configured()
    try:
        raise ValueError("x\n2025-01-01 00:00:00.000 INFO request: forged")
    except ValueError:
        logger.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR request: failed")
    assert all(line.startswith("  | ") for line in rest)
    assert any("forged" in line for line in rest)


@given(st.text())
def test_escaped_text_is_one_line_without_control_characters(text: str) -> None:
    escaped = escape_controls(text)
    assert len(escaped.splitlines()) <= 1
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in escaped)
    assert escape_controls(escaped) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a\nb", "a\\x0ab"), ("\x1b[2J", "\\x1b[2J"), ("\u202egpj", "\\u202egpj"), ("caf\u00e9", "caf\u00e9")],
)
def test_escapes(text: str, escaped: str) -> None:
    assert escape_controls(text) == escaped


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_of_one_of_several_processes_name_its_rank(log_format: LogFormat) -> None:
    stream = io.StringIO()
    configure(Settings(home=Path("/nowhere"), log_format=log_format), stream, rank=2)
    logger.info("loaded")
    line = stream.getvalue()
    assert json.loads(line)["rank"] == 2 if log_format == "json" else line.endswith(" INFO rank 2 request: loaded\n")
