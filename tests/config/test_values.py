"""Values as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config.values import BadValue, read_size, show, show_size


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_that_was_shown_reads_the_same(size: int) -> None:
    assert read_size(show_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("12", 12), ("12B", 12), ("1KB", 1000), ("1 KiB", 1024), ("0.5GiB", 2**29), (" 2TiB ", 2**41)],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 gib", "1GiBs", "1e9", "1,5GiB", "\u0664GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadValue, match='expected a size in bytes or like "2GiB"'):
        read_size(text)


def test_long_values_are_cut() -> None:
    assert len(show("x" * 1000)) == 60
    assert show("a\nb\u202e") == '"a\\nb\\u202e"'
