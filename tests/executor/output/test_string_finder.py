from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from service.executor.output.string_finder import StringFinder
from service.executor.output.vocabulary import Vocabulary
from service.tool_calling.families import deepseek, mistral


def scan(strings: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """What a scanner passes on of a text in pieces, up to what it finds."""
    scanner = StringFinder(strings)
    released = ""
    for piece in pieces:
        released += scanner.feed(piece)[0]
        if scanner.found is not None:
            return released, scanner.found
    return released + scanner.finish(), None


def cuts(text: str) -> list[list[str]]:
    whole_and_single = [[text], list(text)]
    return whole_and_single + [[text[:i], text[i:]] for i in range(len(text) + 1)]


@pytest.mark.parametrize(
    ("strings", "text", "expected", "found"),
    [
        (["STOP"], "go STOP gone", "go ", "STOP"),
        (["STOP"], "go STO", "go STO", None),
        (["STOP"], "SSTOSTOP", "SSTO", "STOP"),
        (["aab"], "aaaaab", "aaa", "aab"),
        (["abab"], "abaabab!", "aba", "abab"),
        (["bc", "abcd"], "abcd", "a", "bc"),
        (["c", "bc"], "abc", "a", "bc"),
        (["\n\n", "."], "one\ntwo.", "one\ntwo", "."),
        (["ß→"], "Straß→e", "Stra", "ß→"),
        ([""], "all", "all", None),
        ([], "all", "all", None),
    ],
)
def test_finds_the_same_at_every_cut(strings: list[str], text: str, expected: str, found: str | None) -> None:
    assert {scan(strings, pieces) for pieces in cuts(text)} == {(expected, found)}


def test_holds_back_only_what_may_still_match() -> None:
    scanner = StringFinder(["<end>"])
    assert [scanner.feed(piece) for piece in ("a <", "b <e", "n", "x")] == [
        ("a ", ""),
        ("<b ", ""),
        ("", ""),
        ("<enx", ""),
    ]
    assert scanner.held == ""


def test_gives_back_what_stands_behind_a_match() -> None:
    assert StringFinder(["</think>"]).feed("so</think>Yes") == ("so", "Yes")


def test_what_was_given_back_begins_no_match() -> None:
    scanner = StringFinder(["STOP"])
    assert scanner.feed("ST") == ("", "")
    assert scanner.finish() == "ST"
    assert scanner.feed("OP, STOP") == ("OP, ", "")


letters = st.text("ab", min_size=1, max_size=5)


@given(st.lists(letters, min_size=1, max_size=3), st.lists(st.text("abc", max_size=6), max_size=8))
def test_agrees_with_a_plain_search(strings: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    ends = [(text.find(s) + len(s), -len(s), s) for s in strings if s in text]
    if ends:
        end, _, first = min(ends)
        assert scan(strings, pieces) == (text[: end - len(first)], first)
    else:
        assert scan(strings, pieces) == (text, None)


class SmallTokenizer:
    """As much of a tokenizer as `Vocabulary` reads: three kinds exist in mlx-lm."""

    def __init__(self, tokenmap: list[str] | list[bytes] | None) -> None:
        self.detokenizer = self
        if tokenmap is not None:
            self.tokenmap = tokenmap

    def decode(self, tokens: list[int]) -> str:
        return f"<{tokens[0]}>"


@pytest.mark.parametrize(
    ("tokenmap", "expected"),
    [
        (["Ġhi", "ĠÃ©", "ðŁĺ", "<|end|>", "▁"], [b" hi", " é".encode(), b"\xf0\x9f\x98", b"<|end|>", "▁".encode()]),
        (["\u2581hi".encode(), b"\xe2"], [b" hi", b"\xe2"]),
        (["a"], [b"a", b""]),
        (None, [b"<0>", b"<1>"]),
    ],
    ids=["byte level", "sentencepiece", "beyond the vocabulary", "any other"],
)
def test_vocabulary_knows_exact_bytes(tokenmap: list[str] | list[bytes] | None, expected: list[bytes]) -> None:
    vocabulary = Vocabulary(SmallTokenizer(tokenmap))
    assert [vocabulary.token_bytes(i) for i in range(len(expected))] == expected
    assert [vocabulary.token_bytes(i) for i in range(len(expected))] == expected


def test_special_tokens_reach_the_text(demo_model: Path) -> None:
    """Many models mark their calls with them."""
    from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, NaiveStreamingDetokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model, local_files_only=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [deepseek.CALL, mistral.OPEN]})
    text = f"a<|im_start|>b {deepseek.CALL}{mistral.OPEN}"
    for kind in (BPEStreamingDetokenizer, NaiveStreamingDetokenizer):
        detokenizer = kind(tokenizer)
        for token in tokenizer.encode(text):
            detokenizer.add_token(token)
        detokenizer.finalize()
        assert detokenizer.last_segment == text
