"""Rank 0 and its followers, each with an engine, in threads of one process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from service.executor.distributed.leading_engine import LeadingEngine
from service.executor.distributed.local_ranks import LocalRanks, local_ranks
from service.executor.distributed.ranks import RankLost
from service.executor.distributed.repeat_calls import OutOfStep, repeat_calls
from service.executor.scheduling.messages import Grammar, Prompt
from service.executor.scheduling.protocols import EngineLost, Token
from service.generation import GenerationRequest
from tests.executor.engines import CountingEngine, sequence
from tests.patience import PATIENCE_SECONDS


class Followers:
    """The ranks after 0. `errors` are what they ended with, by rank."""

    def __init__(self, engines: list[CountingEngine], ranks: list[LocalRanks]) -> None:
        self.errors: dict[int, Exception] = {}
        self.compiled: list[GenerationRequest] = []
        self._threads = [
            threading.Thread(target=self._run, args=(engine, rank)) for engine, rank in zip(engines, ranks, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()

    def _run(self, engine: CountingEngine, ranks: LocalRanks) -> None:
        try:
            repeat_calls(engine, ranks, self._compile)
        except Exception as exc:
            self.errors[ranks.rank] = exc
            ranks.fail(str(exc))

    def _compile(self, request: GenerationRequest) -> Grammar:
        self.compiled.append(request)
        return Grammar(None, 100)


@contextmanager
def ranks_of(engines: list[CountingEngine]) -> Iterator[tuple[LeadingEngine, Followers]]:
    ranks = local_ranks(len(engines), PATIENCE_SECONDS)
    followers = Followers(engines[1:], ranks[1:])
    leading = LeadingEngine(engines[0], ranks[0])
    try:
        yield leading, followers
    finally:
        leading.close()
        followers.join()


def fail_at(number: int) -> Callable[[int], None]:
    def fail(step: int) -> None:
        if step == number:
            raise MemoryError("no memory")

    return fail


def step_until_it_ends(engine: LeadingEngine) -> None:
    while True:
        engine.step()
        engine.shortfall([4])  # waits for the others


def test_all_ranks_make_the_same_calls() -> None:
    engines = [CountingEngine() for _ in range(3)]
    with ranks_of(engines) as (leading, followers):
        leading.insert(sequence(1, prompt=4, max_tokens=2))
        leading.insert(sequence(2, max_tokens=9))
        tokens = [leading.step() for _ in range(4)]
        leading.remove(2)
        leading.step()
    assert tokens == [[], [Token(2, 1)], [Token(1, 1), Token(2, 2)], [Token(1, 2, "length"), Token(2, 3)]]
    assert not followers.errors
    assert [engine.steps for engine in engines] == [5, 5, 5]
    assert [engine.prompt_tokens_read for engine in engines] == [engines[0].prompt_tokens_read] * 3
    assert all(engine.closed and not engine.held for engine in engines)


def test_one_rank_alone_leads_nobody() -> None:
    engine = CountingEngine()
    with ranks_of([engine]) as (leading, _):
        leading.insert(sequence(1, max_tokens=1))
        assert leading.shortfall([4]) < 0
        leading.step()
        assert leading.step() == [Token(1, 1, "length")]
    assert engine.closed


def test_a_sequence_without_a_seed_gets_one_for_all() -> None:
    engines = [CountingEngine(), CountingEngine()]
    with ranks_of(engines) as (leading, _):
        leading.insert(sequence(1))
        leading.insert(sequence(2))
        chosen = msgspec.structs.replace(sequence(3), sampling=msgspec.structs.replace(sequence(3).sampling, seed=7))
        leading.insert(chosen)
    here, there = ([each.sampling.seed for each in engine.held.values()] for engine in engines)
    assert here == there
    assert None not in here
    assert here[0] != here[1]
    assert here[2] == 7


def test_the_rank_that_misses_most_memory_counts() -> None:
    engines = [CountingEngine(memory=1000), CountingEngine(memory=10), CountingEngine(memory=500)]
    with ranks_of(engines) as (leading, followers):
        assert leading.shortfall([25, 5]) == 20
    assert not followers.errors


def test_followers_compile_the_grammar_for_themselves() -> None:
    constrained = msgspec.structs.replace(sequence(1, stop=("x",)), prompt=Prompt([1], grammar=Grammar(None, 5)))
    engines = [CountingEngine(), CountingEngine()]
    with ranks_of(engines) as (leading, followers):
        leading.insert(constrained)
        leading.insert(sequence(2))
    assert followers.compiled == [constrained.request]
    assert engines[1].held[1].prompt.grammar == Grammar(None, 100)
    assert engines[1].held[2].prompt.grammar is None


def test_what_is_refused_everywhere_ends_nothing() -> None:
    """The counting engine refuses an id that it holds."""
    engines = [CountingEngine(), CountingEngine()]
    with ranks_of(engines) as (leading, followers):
        leading.insert(sequence(1, max_tokens=1))
        with pytest.raises(AssertionError):
            leading.insert(sequence(1))
        leading.step()
        assert leading.step() == [Token(1, 1, "length")]
    assert not followers.errors


def test_a_rank_that_answers_something_else_is_found_at_the_next_step() -> None:
    engines = [CountingEngine(), CountingEngine(), CountingEngine()]
    with ranks_of(engines) as (leading, followers):
        leading.insert(sequence(1, max_tokens=50))
        leading.step()
        leading.shortfall([4])  # the others have made the step
        engines[1].prompt_tokens_read += 1
        with pytest.raises(EngineLost):
            step_until_it_ends(leading)
    assert isinstance(followers.errors[1], OutOfStep)
    assert isinstance(followers.errors[2], RankLost)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_engine_that_fails_on_one_rank_ends_all_of_them(rank: int) -> None:
    engines = [CountingEngine(fail_at(2) if each == rank else lambda step: None) for each in range(3)]
    with ranks_of(engines) as (leading, followers):
        leading.insert(sequence(1, max_tokens=50))
        with pytest.raises(EngineLost):
            step_until_it_ends(leading)
        with pytest.raises(EngineLost):
            leading.insert(sequence(2))
        with pytest.raises(EngineLost):
            leading.reset()
    assert followers.errors.keys() == {1, 2}
    assert all(engine.closed for engine in engines)


def test_the_loss_of_a_rank_is_the_reason_for_what_failed_because_of_it() -> None:
    (ranks,) = local_ranks(1)
    engine = LeadingEngine(CountingEngine(), ranks)
    ranks.fail("rank 1 has ended")
    for call in (lambda: engine.insert(sequence(1)), engine.step, engine.reset):
        with pytest.raises(EngineLost, match=r"^rank 1 has ended$"):
            call()
