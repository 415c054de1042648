"""The prefix cache as people see it."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from service.executor.prefix.cache import SPAN_TOKENS, NoPrefixCache, PrefixCache
from service.executor.prefix.outline import outline
from service.executor.prefix.store import PrefixStore
from service.executor.prefix.tree import PrefixTree
from service.queries import PrefixBranch
from tests.executor.prefix.test_tree import A_LOT, add
from tests.executor.token_states import BYTES_PER_TOKEN, TokenStates


def read(cache: PrefixCache, tokens: list[int]) -> None:
    cache.find("", tokens)
    cache.keep("", tokens, tokens)


def shape(branches: list[PrefixBranch]) -> list[tuple[int, int, int, int]]:
    return [(branch.depth, branch.start, branch.end, branch.prompts) for branch in branches]


def test_what_prompts_share_is_a_branch_above_theirs() -> None:
    cache = PrefixCache(TokenStates(cuts_anywhere=True), A_LOT)
    system = list(range(2 * SPAN_TOKENS))  # two spans, one branch
    for question in ([-1, -1], [-2, -2, -2], [-2, -2, -3]):
        read(cache, system + question)
    first = 2 * SPAN_TOKENS
    assert shape(cache.outline()) == [
        (0, 0, first, 3),
        (1, first, first + 2, 1),
        (1, first, first + 3, 2),
        (2, first + 2, first + 3, 1),
    ]
    assert cache.outline()[0].memory_bytes == first * BYTES_PER_TOKEN
    assert NoPrefixCache().outline() == []


def test_a_prompt_that_others_continue_is_no_branch_of_its_own() -> None:
    cache = PrefixCache(TokenStates(cuts_anywhere=True), A_LOT)
    for end in (5, 9, 12):
        read(cache, list(range(end)))
    assert shape(cache.outline()) == [(0, 0, 12, 1)]


def test_memory_and_disk_are_counted_apart(tmp_path: Path) -> None:
    caches = TokenStates(cuts_anywhere=True)
    first = PrefixCache(caches, A_LOT, PrefixStore(tmp_path, "m", A_LOT, caches))
    read(first, list(range(100)))
    (branch,) = first.outline()
    assert (branch.memory_tokens, branch.memory_bytes) == (100, 100 * BYTES_PER_TOKEN)
    first.close()
    second = PrefixCache(caches, A_LOT, PrefixStore(tmp_path, "m", A_LOT, caches))
    (branch,) = second.outline()
    assert (branch.memory_tokens, branch.memory_bytes, branch.disk_tokens) == (0, 0, 100)
    assert branch.disk_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    second.close()


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12), st.booleans())
def test_the_branches_hold_the_whole_tree(known: list[list[int]], cuts_anywhere: bool) -> None:
    tree = PrefixTree(A_LOT, cuts_anywhere=cuts_anywhere)
    for tokens in known:
        add(tree, tokens)
    branches = outline(tree.roots(), lambda _: 0)
    assert sum(branch.memory_bytes for branch in branches) == tree.nbytes
    assert sum(branch.end - branch.start for branch in branches) == sum(len(node.tokens) for node in tree)
    if cuts_anywhere:
        whole = {tuple(tokens) for tokens in known}
        ends = [one for one in whole if not any(other[: len(one)] == one for other in whole - {one})]
        assert sum(branch.prompts for branch in branches if branch.depth == 0) == len(ends)


def test_a_long_row_of_cuts_needs_no_deep_stack() -> None:
    tree = PrefixTree(A_LOT, cuts_anywhere=True)
    for length in range(1, 1500):
        add(tree, [*range(length), -1, -1])
    branches = outline(tree.roots(), lambda _: 0)
    assert max(branch.depth for branch in branches) == 1498
    assert branches[0].prompts == 1499
