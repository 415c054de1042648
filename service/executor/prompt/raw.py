"""Prompts without a chat template: text, tokens, or a gap to fill between two texts."""

from typing import Any

from service.errors import BadRequest, UnsupportedValue
from service.generation import RawPrompt

# Tokens before the prefix, the suffix and the gap: Qwen, DeepSeek and others; StarCoder; CodeLlama.
FILL_IN_THE_MIDDLE = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),
)


def raw_tokens(raw: RawPrompt, tokenizer: Any) -> list[int]:
    """Raises `BadRequest` for a gap that the model cannot fill, and for unknown tokens."""
    if raw.suffix is not None:
        return _around_the_gap(raw, tokenizer)
    tokens = list(tokenizer.encode(raw.text)) if raw.tokens is None else list(raw.tokens)
    wrong = next((token for token in tokens if not 0 <= token < len(tokenizer)), None)
    if wrong is not None:
        raise BadRequest.at("prompt", f"expected token ids from 0 to {len(tokenizer) - 1}, found {wrong}.")
    # A model cannot begin without a token.
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return tokens or [start]


def _around_the_gap(raw: RawPrompt, tokenizer: Any) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    markers = next((each for each in FILL_IN_THE_MIDDLE if all(marker in vocabulary for marker in each)), None)
    if markers is None:
        raise UnsupportedValue.at("suffix", "this model has no tokens to fill in the middle of a text. Leave it out.")
    before, after, gap = (vocabulary[marker] for marker in markers)
    prefix = tokenizer.encode(raw.text, add_special_tokens=False)
    suffix = tokenizer.encode(raw.suffix, add_special_tokens=False)
    return [before, *prefix, after, *suffix, gap]
