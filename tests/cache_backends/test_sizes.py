"""Sizes as people write them in cache URLs, in settings and on the command line."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from cache_backends.sizes import read_size

SIZES = [
    ("0", 0),
    ("1", 1),
    ("1000", 1000),
    ("12B", 12),
    ("10b", 10),
    ("1KB", 1000),
    ("1KiB", 1024),
    ("2gib", 2 * 1024**3),
    ("256MiB", 256 * 1024**2),
    ("1.5GiB", 3 * 512 * 1024**2),
    ("2 GB", 2 * 10**9),
    ("2GiB ", 2 * 1024**3),
    (" 1TiB\n", 1024**4),
    ("999999999999999.1TB", 999_999_999_999_999_100_000_000_000),
]


@pytest.mark.parametrize(("text", "expected"), SIZES)
def test_size(text: str, expected: int) -> None:
    assert read_size(text) == expected


@pytest.mark.parametrize("text", ["", " ", "-1", "1XB", "MiB", "1e9", "1,5GiB", "1GiB2", "1  GiB", "\u0661", "NaN"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        read_size(text)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        found = read_size(text)
    except ValueError:
        return
    assert found >= 0
