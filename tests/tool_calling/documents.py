"""Which documents a grammar allows, and random ones of them."""

import random
from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask


def spell(text: str) -> Sequence[str]:
    """As for a tokenizer to which no markup is special."""
    return [text] if text else []


def accepts(tokenizer: LLTokenizer, grammar: str, text: str) -> bool:
    matcher = LLMatcher(tokenizer, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def walk(tokenizer: LLTokenizer, grammar: str, seed: int, *, at_most: int = 200) -> str | None:
    """A random document; None if it would not end."""
    matcher = LLMatcher(tokenizer, grammar)
    assert not matcher.is_error(), matcher.get_error()
    chance = random.Random(seed)
    bits = allocate_token_bitmask(1, tokenizer.vocab_size)
    tokens: list[int] = []
    while len(tokens) < at_most:
        if matcher.is_accepting() and (matcher.is_stopped() or chance.random() < 0.6):
            return tokenizer.decode_str(tokens)
        fill_next_token_bitmask(matcher, bits)
        allowed = np.unpackbits(bits.view(np.uint8), bitorder="little").nonzero()[0]
        token = int(chance.choice(allowed[allowed != tokenizer.eos_token]))
        assert matcher.consume_token(token)
        tokens.append(token)
    return None
