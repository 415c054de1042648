"""Figures in a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli.figures import count, duration, size, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.000434, "0.43 ms"),
        (0.0099, "9.90 ms"),
        (0.00996, "10 ms"),
        (0.626, "626 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 0 s"),
        (125.0, "2 min 5 s"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (300, "5 min"), (3723, "1 h 2 min"), (90_061, "1 d 1 h")]
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 * 1024, "300 KiB"), (2**42, "4.0 TiB")]
)
def test_size(value: int, text: str) -> None:
    assert size(value) == text


@given(st.integers(0, 2**60))
def test_a_size_is_short(value: int) -> None:
    assert len(size(value)) <= len("1023 KiB") + (value >= 2**43) * 10


def test_count() -> None:
    assert (count(None), count(1451)) == ("-", "1,451")
