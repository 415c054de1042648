"""What is guessed followed the same tokens before, or follows an edit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executor.speculation.lookup import CANDIDATES, NGRAM, PromptLookup

texts = st.lists(st.integers(0, 3), max_size=60)


def followed_before(text: list[int], draft: list[int]) -> bool:
    """Whether each token of the draft has come before, after the same n-gram."""
    for i, token in enumerate(draft):
        known = text + draft[:i]
        ngram = known[-NGRAM:]
        places = range(NGRAM, len(known))
        if not any(known[place - NGRAM : place] == ngram and known[place] == token for place in places):
            return False
    return True


@given(texts, texts, st.integers(1, 12))
def test_a_draft_has_only_tokens_that_followed_the_same_ngram(prompt: list[int], answer: list[int], most: int) -> None:
    lookup = PromptLookup(prompt)
    text = list(prompt)
    for token in answer:
        lookup.follow([token])
        text.append(token)
        draft = lookup.draft(most)
        assert len(draft) == (most if lookup.can_draft() else 0)
        assert lookup.basis() == 0 or followed_before(text, draft)


@given(texts)
def test_what_has_been_there_is_found(text: list[int]) -> None:
    known = {tuple(text[i : i + NGRAM]) for i in range(len(text) - NGRAM)}
    assert PromptLookup(text).can_draft() == (tuple(text[-NGRAM:]) in known and len(text) > NGRAM)


@given(texts, texts, texts, st.integers(1, 9))
def test_it_does_not_matter_in_how_many_parts_the_answer_came(
    prompt: list[int], first: list[int], second: list[int], most: int
) -> None:
    at_once, in_parts = PromptLookup(prompt), PromptLookup(prompt)
    at_once.follow(first + second)
    in_parts.follow(first)
    in_parts.draft(most)
    in_parts.follow(second)
    assert at_once.draft(most) == in_parts.draft(most)


def test_the_longest_suffix_decides() -> None:
    text = [9, 1, 2, 3, 10, 8, 1, 2, 3, 20, 7, 1, 2, 3, 30]
    for before, after in ((9, 10), (8, 20), (7, 30)):
        assert PromptLookup([*text, before, 1, 2, 3]).draft(1) == [after]


def test_of_equal_suffixes_the_place_where_the_text_was_left_decides() -> None:
    """A function is copied with another name; its end is that of others, too."""
    end = [50, 51, 52]
    functions = [[*range(10 * n, 10 * n + 5), 90 + n, *end, 60 + n] for n in range(1, 5)]
    prompt = [token for function in functions for token in function]
    lookup = PromptLookup(prompt)
    lookup.follow([*functions[1][:5], 99, *end])
    assert lookup.draft(1) == [62]


def test_a_loop_is_drafted_as_far_as_asked() -> None:
    assert PromptLookup([5, 1, 2, 1, 2, 1, 2]).draft(7) == [1, 2, 1, 2, 1, 2, 1]


def test_a_copy_is_guessed_whole_but_for_its_beginning_and_what_is_changed() -> None:
    original = list(range(100, 400))
    copy = [*original[:150], 7, *original[151:]]
    lookup = PromptLookup([*original, 0])
    missed = 0
    for token in copy:
        missed += lookup.draft(1) != [token]
        lookup.follow([token])
    assert missed == NGRAM + 1


@pytest.mark.parametrize(
    ("changed", "into", "missed"),
    [
        ([], [7], 2),
        ([116], [], 2),
        ([116], [7, 8], 3),
        ([116, 117, 118], [7], 2),
        ([116, 117, 118], [7, 8, 9, 10], 5),
        (list(range(116, 140)), [7], 1 + NGRAM),  # too far away
    ],
)
def test_an_edited_copy_is_found_again_before_the_same_ngram_comes(
    changed: list[int], into: list[int], missed: int
) -> None:
    original = list(range(100, 160))
    start = changed[0] - 100 if changed else 16
    copy = [*original[:start], *into, *original[start + len(changed) :]]
    lookup = PromptLookup([*original, *original[:NGRAM]])
    wrong = 0
    for token in copy[NGRAM:]:
        wrong += lookup.draft(1) != [token]
        lookup.follow([token])
    assert wrong == missed


def test_what_a_guess_rests_on() -> None:
    original = list(range(100, 130))
    lookup = PromptLookup([*original, *original[:NGRAM]])
    bases = [lookup.basis()]
    for token in [*original[NGRAM:15], 7, *original[16:]]:
        lookup.follow([token])
        bases.append(lookup.basis())
    assert bases == [1] * 3 + [2] * 6 + [3] * 4 + [0] * 3 + [1] * 3 + [2] * 6 + [3] * 3


def test_only_the_newest_places_are_looked_at() -> None:
    old = [4, 1, 2, 3, 77]
    lookup = PromptLookup([*old, *[5, 1, 2, 3, 88] * CANDIDATES, 4, 1, 2, 3])
    assert lookup.draft(1) == [88]
