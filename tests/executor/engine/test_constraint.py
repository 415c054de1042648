"""The mask on logits, token by token."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from service.executor.engine.constraint import Constraint
from service.executor.scheduling.messages import Grammar

EOS = 2


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> LLTokenizer:
    return LLTokenizer((demo_model / "tokenizer.json").read_text(), eos_token=EOS)


def constraint(tokenizer: LLTokenizer, grammar: str, *, prompt_tokens: int = 1) -> Constraint:
    return Constraint(Grammar(LLMatcher(tokenizer, grammar), tokenizer.vocab_size), prompt_tokens)


def allowed(logits: mx.array) -> list[int]:
    return [int(i) for i in np.isfinite(np.asarray(logits)[0]).nonzero()[0]]


def test_each_step_allows_what_the_grammar_does(tokenizer: LLTokenizer) -> None:
    process = constraint(tokenizer, 'start: "7" | "8" "9"')
    seven, eight, nine = (tokenizer.tokenize_str(digit)[0] for digit in "789")
    logits = mx.zeros((1, tokenizer.vocab_size))
    tokens = [11]  # a prompt says nothing of the answer
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
    first, second = Constraint(grammar, 1), Constraint(grammar, 1)
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
    process = Constraint(Grammar(matcher, tokenizer.vocab_size), 1)
    logits = mx.zeros((1, tokenizer.vocab_size))
    letter = tokenizer.tokenize_str("a")[0]
    for tokens in ([1], [1, letter], [1, letter, letter]):
        masked = process(mx.array(tokens), logits)
    assert process.error
    assert "start" not in process.error  # it is logged, and must not show the grammar, nor what was written
    assert masked is logits


@pytest.mark.parametrize("grammar", ['start: "8" "9"+ "7"?', 'start: ("8" | "9" | "7")*', 'start: "8" "9"'])
def test_looking_ahead_allows_what_token_by_token_does(tokenizer: LLTokenizer, grammar: str) -> None:
    """Also behind the end; and it leaves nothing behind."""
    digits = {digit: tokenizer.tokenize_str(digit)[0] for digit in "789"}
    prompt, draft = [11, 12], [digits["8"], digits["9"], EOS, EOS]
    rows = mx.zeros((len(draft) + 1, tokenizer.vocab_size))
    step_by_step = constraint(tokenizer, grammar, prompt_tokens=2)
    expected = [allowed(step_by_step(mx.array(prompt + draft[:length]), rows[:1])) for length in range(len(draft) + 1)]
    process = constraint(tokenizer, grammar, prompt_tokens=2)
    for length in (4, 1, 3, 4):
        inputs = mx.array([prompt[-1], *draft[:length]])
        masked = process.look_ahead(inputs, rows[: length + 1], read=len(prompt) + length)
        assert [allowed(masked[row : row + 1]) for row in range(length + 1)] == expected[: length + 1]
    assert allowed(process.look_ahead(mx.array(draft[:1]), rows[:1], read=len(prompt) + 1)) == expected[1]
    process.follow(prompt + draft[:2])
    assert allowed(process.look_ahead(mx.array(draft[1:2]), rows[:1], read=len(prompt) + 2)) == expected[2]
    assert process.error == ""


def test_drafts_are_cut_and_forced_tokens_known(tokenizer: LLTokenizer) -> None:
    process = constraint(tokenizer, 'start: "7" ("8" | "9")', prompt_tokens=1)
    seven, eight, nine = (tokenizer.tokenize_str(digit)[0] for digit in "789")
    assert process.forced() == [seven]
    assert process.permitted([seven, nine, eight]) == [seven, nine]
    assert process.permitted([eight]) == []
    process.follow([1, seven])
    assert process.forced() == []
    assert process.permitted([nine]) == [nine]
