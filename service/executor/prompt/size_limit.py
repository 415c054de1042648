from collections.abc import Callable, Iterable

# Text with at most this many characters per token of the context may fit and is not estimated.
CHARACTERS_PER_TOKEN = 8

CHUNK_CHARACTERS = 16_384

# A word cut at the end of a chunk has a few more tokens than the whole word.
CHUNK_SLACK_TOKENS = 16


def estimate_excess(texts: Iterable[str], encode: Callable[[str], list[int]], context_length: int) -> int | None:
    """Estimates the tokens of `texts` if they certainly exceed `context_length`, else returns None."""
    text = "\n".join(texts)
    if len(text) <= CHARACTERS_PER_TOKEN * context_length:
        return None
    tokens = certain = 0
    for end in range(CHUNK_CHARACTERS, len(text), CHUNK_CHARACTERS):
        found = len(encode(text[end - CHUNK_CHARACTERS : end]))
        tokens += found
        certain += max(0, found - CHUNK_SLACK_TOKENS)
        # Reading on would block other requests: the largest body takes a minute, at a megabyte a second.
        if certain > context_length:
            return tokens * len(text) // end
    return None
