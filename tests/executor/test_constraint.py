"""The mask on logits, token by token."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from service.executor.constraint import Constraint
from service.executor.messages import Grammar

EOS = 2


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> LLTokenizer:
    return LLTokenizer((demo_model / "tokenizer.json").read_text(), eos_token=EOS)


def constraint(tokenizer: LLTokenizer, grammar: str) -> Constraint:
    return Constraint(Grammar(LLMatcher(tokenizer, grammar), tokenizer.vocab_size))


def allowed(logits: mx.array) -> list[int]:
    return [int(i) for i in np.isfinite(np.asarray(logits)[0]).nonzero()[0]]


def test_each_step_allows_what_the_grammar_does(tokenizer: LLTokenizer) -> None:
    process = constraint(tokenizer, 'start: "7" | "8" "9"')
    seven, eight, nine = (tokenizer.tokenize_str(digit)[0] for digit in "789")
    logits = mx.zeros((1, tokenizer.vocab_size))
    tokens = [11, 12]  # a prompt says nothing of the answer
    steps = []
    for drawn in (eight, nine, EOS, None):
        steps.append(allowed(process(mx.array(tokens), logits)))
        tokens.append(drawn if drawn is not None else EOS)
    assert steps == [sorted([seven, eight]), [nine], [EOS], [EOS]]
    assert process.error == ""


def test_a_grammar_is_shared_by_sequences_that_differ(tokenizer: LLTokenizer) -> None:
    grammar = Grammar(LLMatcher(tokenizer, 'start: ("7" | "8") "9"'), tokenizer.vocab_size)
    logits = mx.zeros((1, tokenizer.vocab_size))
    seven, nine = (tokenizer.tokenize_str(digit)[0] for digit in "79")
    first, second = Constraint(grammar), Constraint(grammar)
    for process in (first, second):
        assert len(allowed(process(mx.array([1]), logits))) == 2
    assert allowed(first(mx.array([1, seven]), logits)) == [nine]


@pytest.mark.parametrize("more", [-7, 0, 40])
def test_a_model_may_score_fewer_or_more_tokens_than_the_tokenizer_has(tokenizer: LLTokenizer, more: int) -> None:
    process = constraint(tokenizer, "start: /(?s:.*)/")
    logits = mx.zeros((1, tokenizer.vocab_size + more))
    masked = process(mx.array([1]), logits)
    assert masked.shape == logits.shape
    assert max(allowed(masked)) < tokenizer.vocab_size


def test_scores_of_allowed_tokens_stay_as_they_are(tokenizer: LLTokenizer) -> None:
    process = constraint(tokenizer, 'start: "7"')
    logits = mx.random.normal((1, tokenizer.vocab_size)).astype(mx.float16)
    masked = process(mx.array([1]), logits)
    (seven,) = tokenizer.tokenize_str("7")
    assert masked.dtype == mx.float16
    assert masked[0, seven].item() == logits[0, seven].item()


def test_a_grammar_that_cannot_be_followed_says_so(tokenizer: LLTokenizer) -> None:
    limits = LLParserLimits(step_max_items=1, step_lexer_fuel=1)
    matcher = LLMatcher(
        tokenizer, "start: (a | b)*\na: /[a-z]{3,9}/ b\nb: /[a-f]+[0-9]*/ a?", limits=limits, log_level=0
    )
    process = Constraint(Grammar(matcher, tokenizer.vocab_size))
    logits = mx.zeros((1, tokenizer.vocab_size))
    letter = tokenizer.tokenize_str("a")[0]
    for tokens in ([1], [1, letter], [1, letter, letter]):
        masked = process(mx.array(tokens), logits)
    assert process.error
    assert masked is logits
