"""How memory is reserved. A token takes one byte of the engine's memory."""

from collections.abc import Mapping

import pytest

from service.errors import ContextLengthExceeded, Overloaded
from service.executor.base import RETRY_AFTER_SECONDS
from service.executor.scheduling.room import PATIENCE_SECONDS, PORTION_TOKENS, Room
from tests.executor.engines import CountingEngine, sequence


class Bench:
    def __init__(self, memory: int, engine: CountingEngine | None = None) -> None:
        self.now = 1000.0
        self.engine = engine or CountingEngine(memory=memory)
        self.room = Room(self.engine, lambda: self.now)

    def admit(self, prompt: int, max_tokens: int = 10, running: Mapping[int, int] | None = None) -> int:
        return self.room.admit(sequence(9, prompt=prompt, max_tokens=max_tokens), running or {})

    def grow(self, prompt: int, max_tokens: int, reserved: int, running: Mapping[int, int] | None = None) -> int:
        return self.room.grow(sequence(9, prompt=prompt, max_tokens=max_tokens), reserved, running or {})


@pytest.mark.parametrize(
    ("memory", "prompt", "max_tokens", "portion"),
    [(500, 100, 10, 10), (9000, 100, 5000, PORTION_TOKENS), (500, 100, 5000, 400), (500, 499, 10, 1)],
    ids=["the whole answer", "a portion", "what fits", "one token"],
)
def test_the_first_portion_of_an_answer_is_reserved(memory: int, prompt: int, max_tokens: int, portion: int) -> None:
    bench = Bench(memory)
    assert bench.admit(prompt, max_tokens) == portion
    assert bench.engine.reserved == {9: prompt + portion}


def test_a_sequence_that_fits_next_to_others_is_reserved_with_them() -> None:
    bench = Bench(500)
    assert bench.admit(100, running={1: 390}) == 10
    assert bench.engine.reserved == {1: 390, 9: 110}


def test_a_sequence_that_does_not_fit_next_to_others_waits_for_them() -> None:
    bench = Bench(500)
    assert bench.admit(100, running={1: 391}) == 0
    assert bench.engine.reserved == {}
    bench.now += PATIENCE_SECONDS
    assert bench.admit(100, running={1: 391}) == 0
    assert not bench.room.short


@pytest.mark.parametrize("prompt", [500, 501])
def test_a_prompt_that_fits_in_no_memory_is_refused(prompt: int) -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        Bench(500).admit(prompt)
    assert (refused.value.prompt_tokens, refused.value.context_length) == (prompt, 500)


def test_memory_that_was_freed_since_lets_a_longer_prompt_in() -> None:
    bench = Bench(500)
    bench.engine.memory = 600
    assert bench.admit(500) == 10
    assert bench.room.longest == 600


@pytest.mark.parametrize("left", [300, 1, 0])
def test_a_prompt_waits_with_patience_for_memory_of_other_programs(left: int) -> None:
    bench = Bench(500)
    bench.engine.memory = left
    assert bench.admit(400) == 0
    bench.now += PATIENCE_SECONDS - 1
    assert bench.admit(400) == 0
    assert bench.room.short
    bench.now += 1
    with pytest.raises(ContextLengthExceeded if left else Overloaded) as refused:
        bench.admit(400)
    if isinstance(refused.value, ContextLengthExceeded):
        assert (refused.value.prompt_tokens, refused.value.context_length) == (400, left)
    else:
        assert refused.value.retry_after == RETRY_AFTER_SECONDS
        assert str(refused.value).startswith("Other programs hold the memory")
    assert bench.room.longest == left


@pytest.mark.parametrize(("left", "portion"), [(405, 5), (401, 1)])
def test_after_patience_an_answer_gets_what_memory_is_left(left: int, portion: int) -> None:
    bench = Bench(500)
    bench.engine.memory = left
    assert bench.admit(400) == 0
    bench.now += PATIENCE_SECONDS
    assert bench.admit(400) == portion
    assert bench.engine.reserved == {9: 400 + portion}
    assert (bench.room.longest, bench.room.short) == (left, False)


def test_a_prompt_does_not_wait_again_when_memory_comes_and_goes() -> None:
    class Unsteady(CountingEngine):
        def shortfall(self, lengths: list[int]) -> int:
            return 1

    bench = Bench(500, Unsteady(memory=500))
    assert bench.admit(400) == 0
    bench.now += PATIENCE_SECONDS
    with pytest.raises(Overloaded):
        bench.admit(400)


def test_all_who_wait_for_memory_have_one_patience() -> None:
    bench = Bench(500)
    bench.engine.memory = 0
    assert bench.admit(400) == 0
    bench.now += PATIENCE_SECONDS
    for _ in range(3):
        with pytest.raises(Overloaded):
            bench.admit(400)
    bench.room.forget_waiting()
    assert bench.admit(400) == 0


def test_without_any_memory_a_prompt_waits_too() -> None:
    bench = Bench(0)
    assert bench.admit(400) == 0
    assert bench.room.short
    bench.engine.memory = 401
    assert bench.admit(400) == 1


def test_patience_begins_anew_for_the_next_prompt() -> None:
    bench = Bench(500)
    bench.engine.memory = 300
    assert bench.admit(400) == 0
    bench.engine.memory = 500
    assert bench.admit(400) == 10
    assert not bench.room.short
    bench.engine.memory = 300
    bench.now += PATIENCE_SECONDS
    assert bench.admit(400) == 0
    bench.room.forget_waiting()
    assert not bench.room.short
    bench.now += PATIENCE_SECONDS
    assert bench.admit(400) == 0


@pytest.mark.parametrize(
    ("memory", "max_tokens", "running", "reserved"),
    [
        (9000, 5000, 0, 2 * PORTION_TOKENS),
        (9000, PORTION_TOKENS + 7, 0, PORTION_TOKENS + 7),
        (9000, 5000, 9000 - 100 - 2 * PORTION_TOKENS, 2 * PORTION_TOKENS),
        (9000, 5000, 9000 - 100 - 2 * PORTION_TOKENS + 1, PORTION_TOKENS + PORTION_TOKENS // 4),
        (9000, 5000, 9000 - 100 - PORTION_TOKENS, PORTION_TOKENS),
        (100 + PORTION_TOKENS + 9, 5000, 0, PORTION_TOKENS + 9),
    ],
    ids=["a portion", "the rest of the answer", "a portion just fits", "a quarter", "nothing", "what memory is left"],
)
def test_an_answer_grows_by_a_portion_that_fits(memory: int, max_tokens: int, running: int, reserved: int) -> None:
    bench = Bench(memory)
    others = {1: running} if running else {}
    assert bench.grow(100, max_tokens, PORTION_TOKENS, others) == reserved
    grown = {**others, 9: 100 + reserved} if reserved > PORTION_TOKENS else {}
    assert bench.engine.reserved == grown


def test_idle_memory_goes_to_other_programs_and_freed_memory_is_used() -> None:
    bench = Bench(500)
    bench.admit(100)
    bench.engine.memory = 600
    bench.room.look_around({})
    assert (bench.engine.reserved, bench.room.longest) == ({}, 600)
    bench.engine.memory = 400
    bench.room.look_around({})
    assert bench.room.longest == 600
