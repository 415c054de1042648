"""The prefix cache over a model whose state is its tokens: whatever comes out must be the prompt's own beginning."""

import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.executor.prefix.cache import SPAN_TOKENS, NoPrefixCache, PrefixCache
from service.executor.prefix.file import DamagedFile, read_span
from service.executor.prefix.store import PrefixStore
from service.executor.prefix.worth import MeasuredPrices
from service.executor.scheduling.messages import Prompt
from tests.examples import examples
from tests.executor.token_states import BYTES_PER_TOKEN, TokenStates

A_LOT = 10**9


@contextmanager
def opened(
    folder: Path, *, cuts: bool = True, memory: int = A_LOT, disk: int = A_LOT, model: str = "m"
) -> Iterator[Any]:
    caches = TokenStates(cuts_anywhere=cuts)
    cache = PrefixCache(caches, memory, PrefixStore(folder, model, disk, caches))
    try:
        yield cache
    finally:
        cache.close()


def read(cache: PrefixCache, tokens: list[int], caller: str = "", stops: tuple[int, ...] = ()) -> int:
    """Reads a prompt as the engine does, and says how much of it was known."""
    reuse = cache.find(caller, tokens)
    assert (reuse.caches or []) == tokens[: reuse.length]
    assert reuse.length < len(tokens)
    for stop in [*(s for s in cache.stops(Prompt(tokens, boundaries=stops)) if s > reuse.length), len(tokens)]:
        cache.keep(caller, tokens[:stop], tokens[:stop])
    return reuse.length


def on_disk_of_both(folder: Path, disk: int, prompts: list[list[int]]) -> int:
    """Two processes with the same model read the prompts in turn. Returns the bytes of their files."""
    caches = TokenStates(cuts_anywhere=True)
    stores = [PrefixStore(folder, "m", disk, caches, quiet_seconds=0.0, recount_seconds=0.0) for _ in range(2)]
    both = [PrefixCache(caches, 0, store) for store in stores]
    for number, tokens in enumerate(prompts):
        read(both[number % 2], tokens)
    for cache in both:
        cache.close()
    return on_disk(folder)


@examples(40)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), max_size=16), st.sampled_from([2000, A_LOT]))
def test_two_processes_share_a_folder_and_its_limit(prompts: list[list[int]], disk: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert on_disk_of_both(Path(folder), disk, prompts) <= disk


steps = st.lists(
    st.tuples(
        st.sampled_from(["", "alice", "bob"]), st.lists(st.integers(0, 2), min_size=1, max_size=9), st.booleans()
    ),
    max_size=12,
)


@examples(60)
@given(steps, st.booleans(), st.sampled_from([0, 20, A_LOT]), st.sampled_from([0, 2000, A_LOT]))
def test_only_ever_gives_a_prompt_its_own_beginning(
    asked: list[tuple[str, list[int], bool]], cuts: bool, memory: int, disk: int
) -> None:
    """In any order, from any caller, with any limits, and with restarts in between."""
    with tempfile.TemporaryDirectory() as folder:
        remaining = iter([*asked, ("", [0], True)])
        for caller, tokens, _ in remaining:
            with opened(Path(folder), cuts=cuts, memory=memory, disk=disk) as cache:
                read(cache, tokens, caller)
                for next_caller, others, restart in remaining:
                    read(cache, others, next_caller)
                    assert cache.nbytes <= memory
                    if restart:
                        break
            assert on_disk(Path(folder)) <= disk


@examples(60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "give back", "take", "wait"]), st.lists(st.integers(0, 1), min_size=1, max_size=9)
        ),
        max_size=15,
    ),
    st.booleans(),
    st.sampled_from([0, 20, A_LOT]),
    st.sampled_from([0, 2000, A_LOT]),
)
def test_what_is_counted_on_disk_is_what_is_there(
    steps: list[tuple[str, list[int]]], cuts: bool, memory: int, disk: int
) -> None:
    """Whatever leaves memory, or the disk, while its file is being written."""
    with tempfile.TemporaryDirectory() as folder:
        caches = TokenStates(cuts_anywhere=cuts)
        store = PrefixStore(Path(folder), "m", disk, caches)
        cache = PrefixCache(caches, memory, store)
        cache.rest(False)
        for step, tokens in steps:
            if step == "read":
                read(cache, tokens)
            elif step == "give back":
                cache.set_headroom(-BYTES_PER_TOKEN * len(tokens))
            elif step == "take":
                cache.set_headroom(BYTES_PER_TOKEN * len(tokens))
            else:
                cache.rest(True)
                cache.rest(False)
            runs = [(node.parent, node.start, node.tokens) for node in cache._tree]
            assert len(set(runs)) == len(runs)
        cache.close()
        assert store.nbytes == on_disk(Path(folder)) <= disk


def on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_state_is_known_while_its_file_is_being_written(tmp_path: Path) -> None:
    prompt = list(range(2 * SPAN_TOKENS))
    with opened(tmp_path) as cache:
        cache.rest(False)
        read(cache, prompt)
        cache.set_headroom(-A_LOT)
        assert cache.nbytes == 0
        assert read(cache, [*prompt, 1, 2, 3]) == len(prompt)


@pytest.mark.parametrize("again", [False, True], ids=["not known again", "known again"])
def test_a_run_can_lose_what_it_stands_on_while_its_file_is_being_written(tmp_path: Path, again: bool) -> None:
    first, both = list(range(SPAN_TOKENS)), list(range(2 * SPAN_TOKENS))
    with opened(tmp_path) as cache:
        read(cache, first)
    (file,) = tmp_path.rglob("*.prefix")
    with opened(tmp_path) as cache:
        cache.rest(False)
        assert read(cache, both) == SPAN_TOKENS
        file.write_bytes(b"damaged")
        cache.set_headroom(-A_LOT)
        assert cache.find("", [*both, 1]).length == 0
        cache.set_headroom(A_LOT)
        if again:
            read(cache, both)
    assert len(list(tmp_path.rglob("*.prefix"))) == (2 if again else 0)
    with opened(tmp_path) as cache:
        assert cache.find("", [*both, 1]).length == (len(both) if again else 0)


def test_a_conversation_reads_only_what_is_new(tmp_path: Path) -> None:
    conversation = list(range(100))
    with opened(tmp_path) as cache:
        for turn in range(5):
            known = read(cache, conversation)
            assert known == (0 if turn == 0 else len(conversation) - 20)
            conversation += [1000 * turn + i for i in range(20)]


def test_the_token_before_the_last_is_not_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        read(cache, [1, 2, 3, 4, 5])
        assert cache.find("", [1, 2, 3, 4, 5]).length == 4
        assert cache.find("", [1, 2, 3, 4, 5, 6]).length == 5
        assert cache.find("", [1, 2, 3, 4, 5, 6, 7]).length == 4
        assert cache.find("", [1, 2, 3, 4, 5, 6, 7, 8]).length == 5


def test_states_that_cannot_be_cut_are_of_use_where_messages_end(tmp_path: Path) -> None:
    system, question, other = [1] * 30, [2] * 10, [3] * 10
    with opened(tmp_path, cuts=False) as cache:
        assert read(cache, system + question, stops=(30, 200)) == 0
        assert read(cache, system + other, stops=(30,)) == 30
        assert read(cache, system + question, stops=(30,)) == 39  # all but the last token
        assert read(cache, system + question + other, stops=(30, 40)) == 40


def test_long_prompts_become_runs_that_are_shared(tmp_path: Path) -> None:
    prompt = list(range(3 * SPAN_TOKENS + 10))
    with opened(tmp_path) as cache:
        read(cache, prompt)
        assert cache.nbytes == BYTES_PER_TOKEN * len(prompt)
        assert read(cache, [*prompt[:-5], 1, 2, 3, 4, 5]) == len(prompt) - 5
        assert cache.nbytes == BYTES_PER_TOKEN * (len(prompt) + 5)
    assert len(list(tmp_path.rglob("*.prefix"))) == 5


def test_a_restart_keeps_what_is_known(tmp_path: Path) -> None:
    prompt = list(range(2 * SPAN_TOKENS))
    with opened(tmp_path) as cache:
        read(cache, prompt, "alice")
        read(cache, [*prompt[:700], *prompt[:9]], "alice")
    with opened(tmp_path) as cache:
        assert cache.nbytes == 0
        assert read(cache, [*prompt, 1, 2, 3], "bob") == 0
        assert read(cache, [*prompt, 1, 2, 3], "alice") == len(prompt)
        assert read(cache, [*prompt[:700], *prompt[:8], 7, 7, 7], "alice") == 708
    with opened(tmp_path, model="another") as cache:
        assert read(cache, prompt, "alice") == 0


def test_a_short_state_gets_a_file_once_what_follows_makes_it_worth_one(tmp_path: Path) -> None:
    caches = TokenStates()
    prices = MeasuredPrices()
    prices.learn_token(1000, 1.0)
    store = PrefixStore(tmp_path, "m", A_LOT, caches, quiet_seconds=0.0, prices=prices)
    cache = PrefixCache(caches, A_LOT, store)
    read(cache, list(range(8)))
    assert cache._tree.find("", list(range(8)), 8).node.file == ""
    assert read(cache, list(range(100))) == 8
    cache.close()
    with opened(tmp_path) as again:
        assert read(again, list(range(100))) == 99


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "prefix"
    for _ in range(2):
        with opened(folder) as cache:
            read(cache, [1, 2, 3])
        (file,) = folder.rglob("*.prefix")
        modes = [path.stat().st_mode & 0o777 for path in (file, file.parent, folder, folder.parent)]
        assert modes == [0o600, 0o700, 0o700, 0o700]
        folder.chmod(0o755)


def test_damaged_files_are_deleted_and_never_used(tmp_path: Path) -> None:
    """A hundred places in three files that stand on each other, a bit each, or the end cut off."""
    prompt, chance = list(range(3 * SPAN_TOKENS)), random.Random(5)
    for round_number in range(100):
        with opened(tmp_path) as cache:
            read(cache, prompt)
        files = sorted(tmp_path.rglob("*.prefix"))
        assert len(files) == 3
        damaged = chance.choice(files)
        content = bytearray(damaged.read_bytes())
        place = chance.randrange(len(content))
        if round_number % 10 == 9:
            del content[place:]
        else:
            content[place] ^= 1 << chance.randrange(8)
        damaged.write_bytes(content)
        with opened(tmp_path) as cache:
            known = cache.find("", [*prompt, 1, 2, 3])
        assert (known.caches or []) == prompt[: known.length]
        assert known.length in (0, SPAN_TOKENS, 2 * SPAN_TOKENS)


def test_a_file_under_another_name_is_a_stranger(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        read(cache, [1, 2, 3, 4])
        read(cache, [9, 8, 7, 6])
    one, two = sorted(tmp_path.rglob("*.prefix"))
    one.write_bytes(two.read_bytes())
    with opened(tmp_path) as cache:
        assert not one.exists()
        assert {read(cache, [1, 2, 3, 4, 5]), read(cache, [9, 8, 7, 6, 5])} == {0, 4}


def test_a_run_without_the_run_before_it_is_deleted(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        read(cache, list(range(SPAN_TOKENS)))
        read(cache, list(range(SPAN_TOKENS + 50)))
    files = sorted(tmp_path.rglob("*.prefix"), key=lambda file: file.stat().st_size)
    files[-1].unlink()
    with opened(tmp_path) as cache:
        assert read(cache, list(range(100))) == 0
    assert not files[0].exists()


def test_the_least_recently_used_files_go_first(tmp_path: Path) -> None:
    one, two, three = ([n] * 400 for n in (1, 2, 3))
    with opened(tmp_path) as cache:
        read(cache, one)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.prefix"))
    with opened(tmp_path, memory=0, disk=2 * size + 100) as cache:
        read(cache, two)
    with opened(tmp_path, memory=0, disk=2 * size + 100) as cache:
        assert read(cache, one) == 399
        read(cache, three)
    with opened(tmp_path, memory=0, disk=2 * size + 100) as cache:
        assert [cache.find("", tokens).length for tokens in (one, two, three)] == [399, 0, 399]


def test_a_disk_that_cannot_be_written_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as cache:
        (folder,) = tmp_path.iterdir()
        folder.rmdir()
        folder.write_text("in the way")
        read(cache, [1, 2, 3, 4])
        assert read(cache, [1, 2, 3, 4, 5]) == 4
    assert "could not be written" in caplog.text


def test_what_is_dropped_for_running_sequences_can_be_read_again() -> None:
    cache = PrefixCache(TokenStates(), A_LOT)
    read(cache, [1] * 100)
    read(cache, [2] * 100)
    cache.set_headroom(-BYTES_PER_TOKEN * 50)
    assert cache.nbytes == BYTES_PER_TOKEN * 100
    cache.set_headroom(-A_LOT)
    assert cache.nbytes == 0
    assert read(cache, [2] * 100) == 0


def test_a_prompt_is_kept_from_its_beginning_as_far_as_there_is_room() -> None:
    prompt = list(range(3 * SPAN_TOKENS))
    cache = PrefixCache(TokenStates(), A_LOT)
    cache.set_headroom(2 * SPAN_TOKENS * BYTES_PER_TOKEN)
    assert cache.keep("", prompt, prompt) == 2 * SPAN_TOKENS
    assert cache.find("", prompt).length == 2 * SPAN_TOKENS
    cache.set_headroom(A_LOT)
    assert cache.keep("", prompt, prompt) == SPAN_TOKENS


def test_what_waits_to_be_written_takes_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    prompt = list(range(10 * SPAN_TOKENS))
    with opened(tmp_path) as cache:
        cache.rest(False)
        cache.set_headroom(SPAN_TOKENS * BYTES_PER_TOKEN)
        read(cache, prompt)
    assert len(list(tmp_path.rglob("*.prefix"))) <= 2


def test_the_log_names_the_first_token_that_differs_and_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.executor.prefix.cache")
    with opened(tmp_path) as cache:
        read(cache, [71, 72, 73, 74, 75])
        read(cache, [71, 72, 73, 99, 98, 97])
    (record,) = caplog.records
    assert record.getMessage() == "A prompt of 6 tokens differs from a recent one at index 3; 3 of its tokens are known"


def test_a_state_that_cannot_be_taken_or_given_costs_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as cache:
        assert cache.keep("", [1, 2, 3], [1, 2]) == 0  # has read less than it says
        read(cache, [4, 5, 6, 7, 8])
        assert cache.find("", []).length == 0
    assert "cannot take a state of 3 tokens" in caplog.text


def test_without_a_prefix_cache_everything_is_read() -> None:
    nothing = NoPrefixCache()
    assert nothing.keep("", [1, 2], [1, 2]) == 0
    assert nothing.find("", [1, 2]).caches is None
    assert (nothing.nbytes, nothing.stops(Prompt([1, 2], boundaries=(1,)))) == (0, [])


def turns(cache: PrefixCache, count: int, caller: str = "") -> list[int]:
    """A conversation under one system prompt, and what was known of each prompt. Messages and answers are 10 tokens."""
    conversation, known = [1] * 30, []
    for turn in range(count):
        conversation += [100 + turn] * 10
        cache.rest(False)
        known.append(read(cache, conversation, caller, stops=(30, len(conversation) - 12)))
        answered = conversation + [500 + turn] * 10
        cache.keep(caller, answered, answered)
        cache.conclude(caller, answered, sorted({30, len(conversation) - 12, len(conversation) - 1}))
        cache.rest(True)
        conversation = answered
    return known


def test_of_a_conversation_only_the_last_turn_is_kept_where_states_cannot_be_cut(tmp_path: Path) -> None:
    with opened(tmp_path, cuts=False) as cache:
        assert turns(cache, 1) == [0]
        one_turn = len(list(cache._tree))
        assert turns(cache, 12) == [30, *(30 + 20 * turn for turn in range(1, 12))]
        assert len(list(cache._tree)) <= one_turn
        assert cache.find("", [*[1] * 30, 9, 9]).length == 30


def test_a_state_that_two_conversations_share_stays(tmp_path: Path) -> None:
    with opened(tmp_path, cuts=False) as cache:
        one, two = [[1] * 30 + [2] * 20 + [n] * 20 for n in (3, 4)]
        read(cache, one, stops=(30, 50))
        read(cache, two, stops=(30, 50))
        cache.conclude("", one, [30, len(one) - 1])
        assert cache.find("", [*one[:50], 7, 7]).length == 50


def test_a_turn_that_was_followed_by_another_is_never_written(tmp_path: Path) -> None:
    with opened(tmp_path, cuts=False) as cache:
        turns(cache, 8)
        assert not list(tmp_path.rglob("*.prefix"))
        states = len(list(cache._tree))
    assert len(list(tmp_path.rglob("*.prefix"))) == states


def test_files_are_written_when_the_conversation_has_rested(tmp_path: Path) -> None:
    caches = TokenStates()
    cache = PrefixCache(caches, A_LOT, PrefixStore(tmp_path, "m", A_LOT, caches, quiet_seconds=0.05))
    cache.rest(False)
    read(cache, [1, 2, 3, 4])
    cache.rest(True)
    while not list(tmp_path.rglob("*.prefix")):
        time.sleep(0.005)
    cache.close()


def test_the_disk_budget_is_for_one_model(tmp_path: Path) -> None:
    with opened(tmp_path, model="one") as cache:
        read(cache, [1] * 400)
    size = on_disk(tmp_path)
    with opened(tmp_path, model="two", disk=size + 100) as cache:
        read(cache, [2] * 400)
    with opened(tmp_path, model="one", disk=size + 100) as cache:
        assert read(cache, [1] * 400) == 399


def test_files_of_a_model_that_is_long_unused_go(tmp_path: Path) -> None:
    with opened(tmp_path, model="one") as cache:
        read(cache, [1, 2, 3, 4])
    (file,) = tmp_path.rglob("*.prefix")
    os.utime(file, (1, 1))
    with opened(tmp_path, model="two"):
        assert not file.exists()


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        read(cache, [1, 2, 3, 4])
    (file,) = tmp_path.rglob("*.prefix")
    whole = file.read_bytes()
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            read_span(file)
