"""The index against a search through everything that was ever added."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executor.prefix.tree import PrefixTree, common_length

A_LOT = 10**9


def add(tree: PrefixTree, tokens: list[int], caller: str = "", nbytes: int | None = None) -> list[Any]:
    """As the prefix cache does it: what is new after the longest match."""
    match = tree.find(caller, tokens, len(tokens))
    new = tuple(tokens[match.length :])
    if new:
        tree.add(match.node, match.length, new, new, len(new) if nbytes is None else nbytes)
    return list(new)


def covered(tree: PrefixTree, tokens: list[int], caller: str = "") -> int:
    match = tree.find(caller, tokens, len(tokens) - 1)
    path = match.node.path()
    ends = [*(node.start for node in path), match.length][1:]
    joined = [t for node, end in zip(path, ends, strict=True) for t in node.tokens[: end - node.start]]
    assert joined == tokens[: match.length]
    return match.length


prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@given(prompts, st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_finds_the_longest_common_prefix_where_states_can_be_cut(known: list[list[int]], asked: list[int]) -> None:
    tree = PrefixTree(A_LOT, cuts_anywhere=True)
    for tokens in known:
        add(tree, tokens)
    longest = max(common_length(tokens, asked) for tokens in known)
    assert covered(tree, asked) == min(longest, len(asked) - 1)
    assert tree.find("", asked, len(asked)).shared == longest
    assert tree.nbytes == sum(len(node.tokens) for node in tree)


@given(prompts, st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_finds_the_longest_whole_prefix_where_states_cannot_be_cut(known: list[list[int]], asked: list[int]) -> None:
    tree = PrefixTree(A_LOT, cuts_anywhere=False)
    for tokens in known:
        add(tree, tokens)
    whole = [len(tokens) for tokens in known if asked[: len(tokens)] == tokens and len(tokens) < len(asked)]
    assert covered(tree, asked) == max(whole, default=0)


@given(prompts, st.integers(0, 30), st.booleans())
def test_never_holds_more_than_its_limit_and_never_a_run_without_what_it_stands_on(
    known: list[list[int]], limit: int, cuts_anywhere: bool
) -> None:
    tree = PrefixTree(limit, cuts_anywhere=cuts_anywhere)
    for tokens in known:
        add(tree, tokens)
        tree.shrink()
        assert tree.nbytes <= limit
        assert tree.nbytes == sum(node.nbytes for node in tree)
        assert all(ancestor.state is not None for node in tree for ancestor in node.path())
        covered(tree, tokens)


def test_callers_share_nothing() -> None:
    tree = PrefixTree(A_LOT, cuts_anywhere=True)
    add(tree, [1, 2, 3, 4], "alice")
    assert covered(tree, [1, 2, 3, 4], "alice") == 3
    assert covered(tree, [1, 2, 3, 4], "bob") == 0
    assert covered(tree, [1, 2, 3, 4]) == 0


def test_drops_the_least_recently_used_run_first_and_what_is_shared_last() -> None:
    tree = PrefixTree(8, cuts_anywhere=True)
    add(tree, [1, 1, 1, 1, 2, 2])
    add(tree, [1, 1, 1, 1, 3, 3])
    assert tree.nbytes == 8
    tree.touch(tree.find("", [1, 1, 1, 1, 2, 2], 6).node)
    add(tree, [1, 1, 1, 1, 4, 4])
    removed = tree.shrink()
    assert [node.tokens for node in removed] == [(3, 3)]
    assert covered(tree, [1, 1, 1, 1, 3, 3]) == 4
    assert covered(tree, [1, 1, 1, 1, 2, 2]) == 5


def test_a_run_on_disk_stays_findable_when_it_leaves_memory() -> None:
    tree = PrefixTree(0, cuts_anywhere=True)
    add(tree, [1, 2, 3])
    (node,) = tree
    node.file = "there"
    assert tree.shrink() == []
    assert (tree.nbytes, covered(tree, [1, 2, 3, 4])) == (0, 3)


@pytest.mark.parametrize(
    ("known", "asked", "shared", "diverges"),
    [
        ([[1, 2, 3]], [1, 2, 3, 4], 3, False),
        ([[1, 2, 3]], [1, 2], 2, False),
        ([[1, 2, 3]], [1, 2, 9, 9], 2, True),
        ([[1, 2, 3], [1, 2, 4]], [1, 2, 5], 2, True),
        ([[1, 2], [1, 2, 4]], [1, 2, 5], 2, True),
        ([[1, 2, 3], [1, 2, 4]], [1, 2, 4, 5], 3, False),
        ([], [1, 2], 0, False),
        ([[7]], [1, 2], 0, True),
    ],
)
def test_tells_where_a_prompt_leaves_what_is_known(
    known: list[list[int]], asked: list[int], shared: int, diverges: bool
) -> None:
    tree = PrefixTree(A_LOT, cuts_anywhere=True)
    for tokens in known:
        add(tree, tokens)
    match = tree.find("", asked, len(asked))
    assert (match.shared, match.diverges) == (shared, diverges)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_beginning_is_common_and_longest(left: list[int], right: list[int]) -> None:
    shared = common_length(left, right)
    assert left[:shared] == right[:shared]
    assert left[shared : shared + 1] != right[shared : shared + 1] or shared == len(left) == len(right)
