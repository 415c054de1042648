"""Values as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_backends.sizes import read_size
from service.config.values import SIZE_PATTERN, BadValue, read_value, show, show_size


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_a_size_that_was_shown_reads_the_same(size: int) -> None:
    assert read_size(show_size(size)) == size


SIZES = ["0", "12", "12b", "1KB", "1 KiB", "0.5gib", " 2TiB "]
NO_SIZES = ["", "GiB", "-1", "1 ib", "1GiBs", "1e9", "1,5GiB", "\u0664GiB", "1.GiB"]


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_what_it_is_in_a_cache_url(text: str) -> None:
    assert read_value(text, int, is_size=True) == read_size(text)
    assert re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadValue, match='expected a size in bytes or like "2GiB"'):
        read_value(text, int, is_size=True)
    assert not re.search(SIZE_PATTERN, text)


def test_long_values_are_cut() -> None:
    assert len(show("x" * 1000)) == 60
    assert show("a\nb\u202e") == '"a\\nb\\u202e"'
