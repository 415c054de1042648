from hypothesis import given
from hypothesis import strategies as st

from service.executor.prompt.size_limit import (
    CHARACTERS_PER_TOKEN,
    CHUNK_CHARACTERS,
    CHUNK_SLACK_TOKENS,
    estimate_excess,
)


class WordTokens:
    """A tokenizer of words that counts what it reads."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, text: str) -> list[int]:
        self.read += len(text)
        return [0] * len(text.split())


@given(words=st.integers(0, 30_000), length=st.integers(1, 30), context_length=st.integers(100, 4000))
def test_only_what_is_certainly_too_long_is_estimated(words: int, length: int, context_length: int) -> None:
    estimate = estimate_excess(["a" * length] * words, WordTokens(), context_length)
    if estimate is not None:
        assert words > context_length
        chunks = words * (length + 1) / CHUNK_CHARACTERS + 1
        assert abs(estimate - words) <= 0.05 * words + CHUNK_SLACK_TOKENS * chunks


def test_what_may_fit_is_not_looked_at() -> None:
    words = WordTokens()
    assert estimate_excess(["a " * 4000], words, 8000 // CHARACTERS_PER_TOKEN) is None
    assert words.read == 0


def test_no_more_is_read_than_would_fit() -> None:
    words = WordTokens()
    estimate = estimate_excess(["abc " * 1_000_000], words, 8192)
    assert estimate is not None
    assert abs(estimate - 1_000_000) < 10_000
    assert words.read <= 4 * 8192 + 2 * CHUNK_CHARACTERS


def test_many_short_texts_are_long_together() -> None:
    assert estimate_excess(["a"] * 1_000_000, WordTokens(), 8192) is not None


def test_few_tokens_of_many_characters_are_for_the_tokenizer_to_count() -> None:
    assert estimate_excess(["a" * 200_000], WordTokens(), 8192) is None
