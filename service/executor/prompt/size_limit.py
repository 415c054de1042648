"""How long a prompt is that cannot fit, found out without reading all of it.

A tokenizer reads about a megabyte in a second, one prompt after another: a body of the largest size would keep every
other request from its prompt for a minute, only to be refused.
"""

from collections.abc import Callable, Iterable

CHARACTERS_PER_TOKEN = 8
"""Text in no more characters than this for each token of the context is not looked at: it may well fit."""

CHUNK_CHARACTERS = 16_384
CHUNK_SLACK_TOKENS = 16
"""A word that is cut where a chunk ends has a few tokens more than a whole one."""


def estimate_excess(texts: Iterable[str], encode: Callable[[str], list[int]], context_length: int) -> int | None:
    """About how many tokens `texts` have, where that is more than `context_length`; None where it is not, or where
    only reading everything would tell. Reads little more than what would fit."""
    text = "\n".join(texts)
    if len(text) <= CHARACTERS_PER_TOKEN * context_length:
        return None
    tokens = certain = 0
    for end in range(CHUNK_CHARACTERS, len(text), CHUNK_CHARACTERS):
        found = len(encode(text[end - CHUNK_CHARACTERS : end]))
        tokens += found
        certain += max(0, found - CHUNK_SLACK_TOKENS)
        if certain > context_length:
            return tokens * len(text) // end
    return None
