import struct
import threading
from base64 import b64encode
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import AnswerLost, BadRequest, ContextLengthExceeded, EngineFailed, Overloaded, ShuttingDown
from service.events import ChoiceFinished, Event, TextDelta
from service.executor.scheduling.messages import (
    Abort,
    Aborted,
    Command,
    Delivery,
    Failed,
    Finished,
    Inspect,
    Inspected,
    Progress,
    Prompt,
    PromptRead,
    PromptUse,
    Sequence,
    Shutdown,
    Started,
    Submit,
)
from service.executor.scheduling.outbox import TOGETHER_SECONDS
from service.executor.scheduling.places import Places
from service.executor.scheduling.protocols import EndReason, EngineLost, Token, Writer
from service.executor.scheduling.room import LOOK_SECONDS, PATIENCE_SECONDS, PORTION_TOKENS
from service.executor.scheduling.scheduler import Scheduler
from service.executor.scheduling.time_slices import TimeSlices
from service.executor.scheduling.trials import PROBE
from service.generation import GenerationRequest, Message, RawPrompt, SamplingParams
from service.queries import PrefixBranch
from service.tallies import Tuning
from tests import patience
from tests.executor.engines import CountingEngine, NumberWriter, failing_at, failing_from, sequence


class Bench:
    """A scheduler, stepped by hand, and all that it delivered."""

    def __init__(
        self, engine: CountingEngine | None = None, *, max_concurrency: int = 2, places: Places | None = None
    ) -> None:
        self.engine = engine or CountingEngine()
        self.now = 0.0
        self.batches: list[list[Delivery]] = []
        self.inbox: SimpleQueue[Command] = SimpleQueue()
        self.scheduler = Scheduler(
            self.engine,
            self.inbox,
            self.deliver,
            self.open_writer,
            places=places or Places(max_concurrency),
            clock=lambda: self.now,
        )

    def open_writer(self, sequence: Sequence) -> Writer:
        return NumberWriter(sequence)

    def deliver(self, deliveries: list[Delivery]) -> None:
        self.batches.append(deliveries)

    def submit(self, *sequences: Sequence) -> None:
        for each in sequences:
            self.inbox.put(Submit(each))

    def step(self, times: int = 1, *, seconds: float = 0) -> None:
        for _ in range(times):
            self.now += seconds
            self.scheduler.step()

    def of(self, sequence_id: int) -> list[Delivery]:
        """All but that it has started and reads."""
        deliveries = [delivery for batch in self.batches for delivery in batch if delivery.sequence == sequence_id]
        return [delivery for delivery in deliveries if not isinstance(delivery, Started | PromptRead)]

    def text(self, sequence_id: int) -> str:
        deliveries = [d for d in self.of(sequence_id) if isinstance(d, Progress | Finished)]
        return "".join(e.text for d in deliveries for e in d.events if isinstance(e, TextDelta))

    def error(self, sequence_id: int) -> Exception:
        (failed,) = [d for d in self.of(sequence_id) if not isinstance(d, Progress)]
        assert isinstance(failed, Failed)
        return failed.error


def test_a_sequence_is_delivered_token_by_token_and_ends_once() -> None:
    bench = Bench()
    bench.submit(sequence(1, max_tokens=3))
    bench.step(6)
    assert bench.batches[0] == [Started(1)]
    assert [type(delivery) for delivery in bench.of(1)] == [Progress, Progress, Finished]
    assert bench.text(1) == "1 2 3 "
    assert bench.of(1)[-1].completion_tokens == 3
    assert (bench.scheduler.running, bench.scheduler.waiting) == (0, 0)


def test_tokens_of_fast_steps_are_delivered_together_and_the_first_and_the_end_at_once() -> None:
    bench = Bench()
    bench.submit(sequence(1, max_tokens=12))
    bench.step(15, seconds=TOGETHER_SECONDS / 4)
    assert [len(batch) for batch in bench.batches] == [1, 1, 3, 4, 4]
    assert bench.text(1) == "".join(f"{number} " for number in range(1, 13))


def test_each_chunk_of_a_prompt_is_reported() -> None:
    bench = Bench()
    bench.submit(sequence(1, prompt=6, max_tokens=1))
    bench.step(4)
    deliveries = [delivery for batch in bench.batches for delivery in batch]
    assert deliveries[:3] == [Started(1), PromptRead(1, 2), PromptRead(1, 4)]
    assert isinstance(deliveries[3], Finished)


def test_one_delivery_a_step_whatever_happens_in_it() -> None:
    bench = Bench(max_concurrency=8)
    bench.submit(*[sequence(i) for i in range(8)])
    bench.step(2)
    assert bench.batches[0] == [Started(i) for i in range(8)]
    assert [len(batch) for batch in bench.batches[1:]] == [8]


def test_the_rest_waits_in_order_and_joins_when_a_place_is_free() -> None:
    bench = Bench(max_concurrency=2)
    bench.submit(*[sequence(i, max_tokens=1) for i in range(5)])
    bench.step()
    assert (bench.scheduler.running, bench.scheduler.waiting) == (2, 3)
    bench.step(8)
    ended = [d.sequence for batch in bench.batches for d in batch if isinstance(d, Finished)]
    assert ended == [0, 1, 2, 3, 4]
    assert bench.engine.most == 2


def test_a_stop_string_takes_the_sequence_out_of_the_engine_at_once() -> None:
    bench = Bench()
    bench.submit(sequence(1, max_tokens=9, stop=("3",)))
    bench.step(4)
    assert bench.text(1) == "1 2 "
    assert bench.of(1)[-1].completion_tokens == 3
    assert bench.of(1)[-1].events == [ChoiceFinished(0, "stop")]
    assert not bench.engine.held


@pytest.mark.parametrize("at_once", [2, 3, 4, 50])
def test_tokens_that_come_together_are_delivered_as_if_one_by_one(at_once: int) -> None:
    one_by_one, together = (Bench(CountingEngine(at_once=count), max_concurrency=3) for count in (1, at_once))
    for bench in (one_by_one, together):
        bench.submit(sequence(1, max_tokens=7), sequence(2, max_tokens=40, stop=("5",)), sequence(3, max_tokens=6))
        bench.step(20)
        assert [bench.text(i) for i in (1, 2, 3)] == ["1 2 3 4 5 6 7 ", "1 2 3 4 ", "1 2 3 4 5 6 "]
        assert [bench.of(i)[-1].completion_tokens for i in (1, 2, 3)] == [7, 5, 6]
        assert [sum(isinstance(d, Finished) for d in bench.of(i)) for i in (1, 2)] == [1, 1]
        assert not bench.engine.held


@pytest.mark.parametrize(
    "steps", [0, 1, 2, 4], ids=["before", "in the prompt", "later in the prompt", "while it writes"]
)
def test_an_abort_frees_the_place_at_the_next_step(steps: int) -> None:
    bench = Bench(max_concurrency=1)
    bench.submit(sequence(1, max_tokens=9, prompt=4), sequence(2, prompt=9))
    bench.step(steps)
    bench.inbox.put(Abort(1))
    bench.step()
    assert isinstance(bench.of(1)[-1], Aborted)
    assert list(bench.engine.held) == [2]


def test_an_aborted_place_is_free_before_its_state_is_put_by() -> None:
    class Keeping(CountingEngine):
        def remove(self, sequence: int) -> None:
            told.append((bench.of(sequence)[-1], bench.scheduler.pulse.running))
            super().remove(sequence)

    told: list[tuple[Delivery, int]] = []
    bench = Bench(Keeping())
    bench.submit(sequence(1, max_tokens=9), sequence(2, max_tokens=9))
    bench.step(3)
    bench.inbox.put(Abort(1))
    bench.step()
    assert told == [(Aborted(1), 1)]
    assert list(bench.engine.held) == [2]


def test_an_abort_of_one_that_has_ended_is_silent() -> None:
    bench = Bench()
    bench.submit(sequence(1, max_tokens=1))
    bench.step(3)
    bench.inbox.put(Abort(1))
    bench.inbox.put(Abort(99))
    bench.step()
    assert [type(delivery) for delivery in bench.of(1)] == [Finished]
    assert bench.of(99) == []


def test_one_that_waits_too_long_is_told_so() -> None:
    bench = Bench(max_concurrency=1)
    bench.submit(sequence(1, max_tokens=9), sequence(2))
    bench.step()
    bench.now = 1000.0
    bench.step()
    assert isinstance(bench.error(2), Overloaded)
    assert bench.error(2).retry_after
    assert str(bench.error(2)).endswith("for a free place. Try again later, or raise maxConcurrency.")
    assert bench.scheduler.running == 1


def test_an_engine_failure_runs_again_what_has_sent_nothing() -> None:
    bench = Bench(CountingEngine(failing_at(4)), max_concurrency=3)
    bench.submit(sequence(1, max_tokens=9), sequence(2, prompt=8), sequence(3, prompt=8))
    bench.step(4)
    assert isinstance(bench.error(1), AnswerLost)
    assert str(bench.error(1)) == "The engine failed while it generated. Try again."
    bench.step(14)
    assert bench.text(2) == bench.text(3) == "1 2 3 "
    assert bench.engine.resets == 1


def test_what_fails_twice_fails() -> None:
    bench = Bench(CountingEngine(failing_at(1, 2)))
    bench.submit(sequence(1))
    bench.step(2)
    assert isinstance(bench.error(1), EngineFailed)
    assert str(bench.error(1)) == "The engine failed while it generated. Try again."
    bench.submit(sequence(2))
    bench.step(6)
    assert bench.text(2) == "1 2 3 "


def test_what_runs_again_has_the_engine_to_itself_until_its_first_token() -> None:
    bench = Bench(CountingEngine(failing_at(2)), max_concurrency=4)
    bench.submit(sequence(1, prompt=9), sequence(2, prompt=5), sequence(3, prompt=3))
    bench.step(2)
    bench.submit(sequence(4, prompt=1))
    while not bench.text(1):
        bench.step()
        assert len(bench.engine.held) <= 1
    bench.step()
    assert list(bench.engine.held) == [1, 4]
    bench.step(40)
    assert [bench.text(i) for i in range(1, 5)] == ["1 2 3 "] * 4


class Allergic(CountingEngine):
    """Fails at every step that has a prompt of one of these lengths in it."""

    def __init__(self, *lengths: int) -> None:
        super().__init__(self._react)
        self._lengths = lengths

    def _react(self, step: int) -> None:
        if any(len(each.prompt.tokens) in self._lengths for each in self.held.values()):
            raise RuntimeError(f"injected at step {step}")


@pytest.mark.parametrize("end", ["abort", "finish"])
def test_one_that_ran_again_and_ended_keeps_the_engine_from_nobody(end: str) -> None:
    bench = Bench(CountingEngine(failing_at(1)))
    bench.submit(sequence(1, max_tokens=1, prompt=9))
    bench.step(2)
    if end == "abort":
        bench.inbox.put(Abort(1))
    else:
        bench.step(20)
    bench.submit(sequence(2), sequence(3))
    bench.step()
    assert list(bench.engine.held) == [2, 3]


def test_one_that_the_engine_cannot_run_fails_alone_however_often_it_comes() -> None:
    bench = Bench(Allergic(5), max_concurrency=4)
    bench.submit(sequence(100, prompt=7), sequence(101, prompt=5), sequence(102, prompt=9))
    bench.step(40)
    assert isinstance(bench.error(101), EngineFailed)
    assert bench.text(100) == bench.text(102) == "1 2 3 "
    for i in range(10):
        bench.submit(sequence(i, prompt=5))
        bench.step(4)
        assert isinstance(bench.error(i), EngineFailed)
    bench.submit(sequence(103, prompt=7))
    bench.step(10)
    assert bench.text(103) == "1 2 3 "


def test_an_engine_that_runs_nothing_but_its_probe_is_lost() -> None:
    bench = Bench(Allergic(2, 3, 4, 5), max_concurrency=1)
    bench.submit(*[sequence(i, prompt=i) for i in range(2, 6)])
    with pytest.raises(EngineLost, match="3 prompts in a row"):
        bench.scheduler.run()


def test_what_runs_again_is_not_told_that_it_waited_too_long() -> None:
    bench = Bench(CountingEngine(failing_at(2)), max_concurrency=2)
    bench.submit(sequence(1, prompt=9), sequence(2, prompt=9))
    bench.step(2)
    bench.now = 1000.0
    bench.step(30)
    assert bench.text(1) == bench.text(2) == "1 2 3 "


def test_what_runs_again_comes_before_what_waits() -> None:
    bench = Bench(CountingEngine(failing_at(2)), max_concurrency=2)
    bench.submit(*[sequence(i, prompt=9, max_tokens=1) for i in range(4)])
    bench.step(40)
    ended = [d.sequence for batch in bench.batches for d in batch if isinstance(d, Finished)]
    assert ended == [0, 1, 2, 3]


def test_a_stop_string_before_the_last_of_several_tokens_keeps_how_the_prompt_was_read() -> None:
    class Telling(CountingEngine):
        def step(self) -> list[Token]:
            tokens = super().step()
            return [msgspec.structs.replace(t, prompt_use=PromptUse(7, 8)) if t.end else t for t in tokens]

    for stop in ("1", "2", "3", "4"):
        bench = Bench(Telling(at_once=5))
        bench.submit(sequence(1, max_tokens=3, stop=(stop,)))
        bench.step(3)
        finished = bench.of(1)[-1]
        assert isinstance(finished, Finished)
        assert finished.prompt_use == PromptUse(7, 8)


def test_an_engine_that_cannot_be_rebuilt_is_lost() -> None:
    class Stubborn(CountingEngine):
        def reset(self) -> None:
            raise RuntimeError("out of memory")

    bench = Bench(Stubborn(failing_at(1)))
    bench.submit(sequence(1))
    with pytest.raises(EngineLost, match="out of memory"):
        bench.scheduler.run()
    assert bench.of(1) == []


@pytest.mark.parametrize("call", ["step", "insert", "remove", "shortfall"])
def test_an_engine_that_says_that_it_is_lost_is_not_rebuilt(call: str) -> None:
    """As rank 0's when another rank has died: who waits is told that reason, and not to try again."""

    def lose(*args: object) -> None:
        raise EngineLost("rank 1 has ended")

    bench = Bench(CountingEngine(), max_concurrency=2)
    bench.submit(sequence(1, max_tokens=100))
    bench.step(4)
    setattr(bench.engine, call, lose)
    bench.submit(sequence(2), sequence(3))
    bench.inbox.put(Abort(2 if call == "insert" else 1))
    with pytest.raises(EngineLost, match="rank 1 has ended"):
        bench.step(5)
    assert {type(delivery) for delivery in bench.of(1)} <= {Progress, Aborted}
    assert bench.of(3) == []


def test_what_ended_before_the_engine_was_lost_is_delivered() -> None:
    class Lost(CountingEngine):
        def remove(self, sequence: int) -> PromptUse | None:
            raise EngineLost("rank 1 has ended")

        def reset(self) -> None:
            raise EngineLost("rank 1 has ended")

    bench = Bench(Lost())
    bench.submit(sequence(1, max_tokens=2), sequence(2, max_tokens=9, stop=("2",)))
    with pytest.raises(EngineLost, match=r"^rank 1 has ended"):
        bench.scheduler.run()
    assert bench.text(1) == "1 2 "
    assert isinstance(bench.of(1)[-1], Finished)
    assert bench.text(2) == "1 "


def test_an_engine_that_only_fails_is_lost() -> None:
    bench = Bench(CountingEngine(failing_from(1)))
    bench.submit(sequence(1))
    bench.step(2)
    bench.submit(sequence(2))
    with pytest.raises(EngineLost, match="injected at step 3"):
        bench.step()


def test_an_engine_that_gets_on_in_between_is_kept() -> None:
    bench = Bench(CountingEngine(failing_at(1, 4, 7, 10, 13)), max_concurrency=1)
    for i in range(5):
        bench.submit(sequence(i, max_tokens=1))
        bench.step(4)
    assert bench.scheduler.pulse.restarts == 5
    assert bench.text(4) == "1 "


def test_short_prompts_go_first_but_not_for_ever() -> None:
    bench = Bench(max_concurrency=1)
    bench.submit(sequence(0, prompt=90), *[sequence(i, prompt=i, max_tokens=1) for i in range(8, 0, -1)])
    bench.step(200)
    ended = [d.sequence for batch in bench.batches for d in batch if isinstance(d, Finished)]
    assert ended == [1, 2, 3, 0, 4, 5, 6, 8, 7]


def test_one_that_does_not_fit_beside_the_others_waits_and_is_not_overtaken() -> None:
    bench = Bench(CountingEngine(memory=20), max_concurrency=3)
    bench.submit(sequence(1, max_tokens=9))
    bench.step()
    bench.submit(sequence(2, prompt=5, max_tokens=11))
    bench.step()
    bench.submit(sequence(3, max_tokens=2))
    bench.step()
    assert list(bench.engine.held) == [1]
    bench.step(60)
    ended = [d.sequence for batch in bench.batches for d in batch if isinstance(d, Finished)]
    assert ended == [1, 3, 2]


@pytest.mark.parametrize(("seconds_for_each", "memory", "most"), [(0.0, 10_000, 16), (0.1, 10_000, 4), (0.0, 620, 6)])
def test_places_adapt_to_measured_steps_and_to_memory(seconds_for_each: float, memory: int, most: int) -> None:
    def decode(step: int) -> None:
        bench.now += 0.05 + max(0, len(engine.held) - 3) * seconds_for_each

    engine = CountingEngine(decode, memory=memory)
    bench = Bench(engine, places=Places(16, adapts=True))
    bench.now = 500.0
    bench.submit(*(sequence(i, prompt=2, max_tokens=100) for i in range(40)))
    bench.step(200)
    assert len(engine.held) == most
    assert (bench.scheduler.pulse.max_concurrency or 0) >= most


def test_a_prompt_that_never_fits_is_refused_at_once_with_the_longest_that_does() -> None:
    bench = Bench(CountingEngine(memory=20))
    bench.submit(sequence(1, max_tokens=9))
    bench.step()
    bench.submit(sequence(2, prompt=20, max_tokens=15))
    bench.step()
    refusal = bench.error(2)
    assert isinstance(refusal, ContextLengthExceeded)
    assert (refusal.prompt_tokens, refusal.context_length) == (20, 20)
    assert bench.scheduler.running == 1


@given(memory=st.integers(1, 9_000), prompt=st.integers(1, 3_000), max_tokens=st.integers(1, 6_000))
@settings(max_examples=30)
def test_max_tokens_is_a_bound_and_not_a_reservation(memory: int, prompt: int, max_tokens: int) -> None:
    bench = Bench(CountingEngine(memory=memory, at_once=7))
    bench.submit(sequence(1, prompt=prompt, max_tokens=max_tokens))
    bench.step()
    if prompt >= memory:
        assert isinstance(bench.error(1), ContextLengthExceeded)
        return
    assert bench.engine.reserved[1] == prompt + min(max_tokens, PORTION_TOKENS, memory - prompt)
    while bench.scheduler.running:
        bench.step()
        assert sum(bench.engine.reserved.values()) <= memory
    finished = bench.of(1)[-1]
    assert isinstance(finished, Finished)
    assert finished.completion_tokens == min(max_tokens, memory - prompt)
    assert finished.events[-1] == ChoiceFinished(0, "length")


def test_an_answer_that_finds_no_room_to_grow_ends_and_the_others_go_on() -> None:
    bench = Bench(CountingEngine(memory=3 * PORTION_TOKENS + 1))
    long = 2 * PORTION_TOKENS - 1
    bench.submit(sequence(1, max_tokens=long), sequence(2, max_tokens=long))
    bench.step(PORTION_TOKENS)
    assert set(bench.engine.reserved.values()) == {2 * PORTION_TOKENS, PORTION_TOKENS + 1}
    bench.step(2 * PORTION_TOKENS)
    answers = [bench.of(i)[-1] for i in (1, 2)]
    assert [answer.completion_tokens for answer in answers] == [long, PORTION_TOKENS]
    assert bench.engine.resets == 0


def test_a_prompt_waits_for_memory_that_other_programs_hold() -> None:
    bench = Bench(CountingEngine(memory=2_000))
    bench.engine.memory = 500
    bench.submit(sequence(1, prompt=900, max_tokens=50))
    bench.step(3)
    assert (bench.scheduler.waiting, bench.scheduler.running) == (1, 0)
    bench.engine.memory = 1_000
    bench.step(600)
    assert isinstance(bench.of(1)[-1], Finished)


@pytest.mark.parametrize(("left", "expected"), [(500, ContextLengthExceeded), (-1, Overloaded)])
def test_a_prompt_does_not_wait_for_ever_for_other_programs(left: int, expected: type[Exception]) -> None:
    bench = Bench(CountingEngine(memory=2_000))
    bench.engine.memory = left
    bench.submit(sequence(1, prompt=900, max_tokens=50))
    bench.step(3)
    bench.now += PATIENCE_SECONDS
    bench.step()
    error = bench.error(1)
    assert isinstance(error, expected)
    assert not isinstance(error, Overloaded) or error.retry_after
    assert bench.scheduler.pulse.longest_tokens == max(0, left)
    bench.engine.memory = 2_000
    bench.submit(sequence(2, prompt=900, max_tokens=50))
    bench.step(600)
    assert isinstance(bench.of(2)[-1], Finished)


def test_those_who_wait_for_other_programs_are_refused_together() -> None:
    bench = Bench(CountingEngine(memory=2_000))
    bench.engine.memory = -1
    bench.submit(*(sequence(number, prompt=900) for number in range(1, 9)))
    for _ in range(int(PATIENCE_SECONDS)):
        bench.step()
        assert bench.scheduler.pulse.progress_at == bench.now  # no stall: the engine is not replaced
        assert not bench.of(1)
        bench.now += 1
    bench.step()
    assert all(isinstance(bench.error(number), Overloaded) for number in range(1, 9))


def test_a_thread_without_work_looks_for_memory_again() -> None:
    class Freed(CountingEngine):
        looks = 0

        def shortfall(self, lengths: list[int]) -> int:
            self.looks += 1
            return 1 if self.looks < 3 else 0

        def step(self) -> list[Token]:
            if self.steps == 1:
                bench.inbox.put(Shutdown())
            return super().step()

    bench = Bench(Freed())
    bench.submit(sequence(1, max_tokens=1))
    bench.scheduler.run()
    assert isinstance(bench.of(1)[-1], Finished)


def test_a_prompt_that_waits_for_memory_in_an_idle_thread_is_refused_in_the_end() -> None:
    class Waited(Bench):
        def deliver(self, deliveries: list[Delivery]) -> None:
            super().deliver(deliveries)
            self.inbox.put(Shutdown())

    class Short(CountingEngine):
        def shortfall(self, lengths: list[int]) -> int:
            bench.now += PATIENCE_SECONDS / 2
            return super().shortfall(lengths)

    bench = Waited(Short(memory=2_000))
    bench.engine.memory = 500
    bench.submit(sequence(1, prompt=900))
    bench.scheduler.run()
    assert isinstance(bench.error(1), ContextLengthExceeded)


def test_an_idle_engine_gives_memory_to_other_programs_and_takes_it_back() -> None:
    bench = Bench(CountingEngine(memory=2_000))
    bench.engine.memory = 3_000
    bench.engine.reserved = {1: 5}
    bench.scheduler.look_around()
    assert bench.engine.reserved == {}
    assert bench.scheduler.pulse.longest_tokens == 3_000
    bench.submit(sequence(1, max_tokens=9))
    bench.step()
    bench.scheduler.look_around()
    assert bench.engine.reserved == {1: 10}


def test_memory_is_looked_at_again_during_a_long_answer() -> None:
    bench = Bench()
    bench.submit(sequence(1, max_tokens=500))
    bench.step(3)
    bench.engine.reserved = {}
    bench.now += LOOK_SECONDS - 0.1
    bench.step()
    assert bench.engine.reserved == {}
    bench.now += 0.1
    bench.step()
    assert bench.engine.reserved == {1: 501}


def test_a_defect_after_the_last_token_does_not_keep_it_back() -> None:
    class Defective(CountingEngine):
        def memory_bytes(self) -> int:
            if self.steps == 3:
                bench.inbox.put(Shutdown())
                raise ValueError("a defect")
            return super().memory_bytes()

    bench = Bench(Defective())
    bench.submit(sequence(1, max_tokens=2))
    bench.scheduler.run()
    assert bench.text(1) == "1 2 "


def test_a_defect_at_every_step_ends_the_thread() -> None:
    class Defective(CountingEngine):
        def memory_bytes(self) -> int:
            raise ValueError("a defect")

    bench = Bench(Defective(), max_concurrency=1)
    bench.submit(*[sequence(i, prompt=i) for i in range(1, 5)])
    with pytest.raises(EngineLost, match="3 prompts in a row"):
        bench.scheduler.run()


class WithPrefixes(CountingEngine):
    branch = PrefixBranch(depth=0, start=0, end=5, memory_tokens=5, memory_bytes=50, disk_tokens=0, disk_bytes=0)

    def prefix_cache_bytes(self) -> int:
        return 50

    def prefixes(self) -> list[PrefixBranch]:
        return [self.branch]


def test_the_pulse_tells_what_is_held() -> None:
    bench = Bench(WithPrefixes())
    pulse = bench.scheduler.pulse
    bench.submit(sequence(1, max_tokens=9))
    bench.step()
    assert (pulse.running, pulse.memory_bytes, pulse.prefix_cache_bytes) == (1, 10, 50)
    bench.inbox.put(Abort(1))
    bench.step()
    assert (pulse.running, pulse.memory_bytes, pulse.prefix_cache_bytes) == (0, 0, 50)


def test_the_pulse_has_what_the_engine_chose_once_nothing_runs() -> None:
    bench = Bench(CountingEngine(memory=70))
    bench.inbox.put(Shutdown())
    bench.scheduler.run()
    assert (bench.scheduler.pulse.tuning, bench.scheduler.pulse.peak_bytes) == (Tuning(chunk_tokens=2), 70)


def test_the_prefixes_are_delivered_to_who_asks() -> None:
    bench = Bench(WithPrefixes())
    bench.inbox.put(Inspect())
    bench.step()
    assert bench.batches == [[Inspected([WithPrefixes.branch])]]


@pytest.mark.parametrize("error", [RuntimeError("no memory"), BadRequest("no such bias")])
def test_one_that_cannot_start_fails_alone(error: Exception) -> None:
    class Picky(CountingEngine):
        def insert(self, sequence: Sequence) -> None:
            if sequence.id == 1:
                raise error
            super().insert(sequence)

    bench = Bench(Picky())
    bench.submit(sequence(1), sequence(2))
    bench.step(6)
    expected = "The generation could not be started. Try again." if isinstance(error, RuntimeError) else "no such bias"
    assert isinstance(bench.error(1), EngineFailed if isinstance(error, RuntimeError) else BadRequest)
    assert str(bench.error(1)) == expected
    assert bench.text(2) == "1 2 3 "
    assert bench.engine.resets == 0


def test_one_whose_tokens_cannot_be_read_fails_alone() -> None:
    class Broken(NumberWriter):
        def feed(self, token: object) -> list[object]:
            raise KeyError("no such token")

    class WithBroken(Bench):
        def open_writer(self, sequence: Sequence) -> Writer:
            return Broken(sequence) if sequence.id == 1 else NumberWriter(sequence)

    bench = WithBroken()
    bench.submit(sequence(1, max_tokens=9), sequence(2))
    bench.step(6)
    assert isinstance(bench.error(1), EngineFailed)
    assert str(bench.error(1)) == "The model's output could not be read."
    assert bench.text(2) == "1 2 3 "
    assert (bench.engine.resets, bench.engine.held) == (0, {})


def test_shutdown_fails_everybody_who_is_there_and_who_comes_with_it() -> None:
    bench = Bench(max_concurrency=1)
    bench.submit(sequence(1, max_tokens=9), sequence(2))
    bench.step(3)
    bench.inbox.put(Shutdown())
    bench.submit(sequence(3))
    bench.scheduler.run()
    assert all(isinstance(bench.error(i), ShuttingDown) for i in (1, 2, 3))
    assert not bench.engine.held


def test_shutdown_answers_those_who_wait_in_order() -> None:
    bench = Bench(max_concurrency=1)
    bench.submit(*[sequence(i, max_tokens=9) for i in range(4)])
    bench.step(3)
    bench.inbox.put(Shutdown())
    bench.scheduler.run()
    assert [d.sequence for batch in bench.batches for d in batch if isinstance(d, Failed)] == [0, 1, 2, 3]


def test_a_probe_that_gives_no_token_is_removed() -> None:
    class Silent(CountingEngine):
        removed: ClassVar[list[int]] = []

        def remove(self, sequence: int) -> None:
            self.removed.append(sequence)
            super().remove(sequence)

        def step(self) -> list[Token]:
            return [token for token in super().step() if token.sequence != PROBE]

    bench = Bench(Silent(failing_at(1, 2)), max_concurrency=1)
    bench.submit(sequence(1), sequence(2, prompt=2))
    bench.step(9)
    assert Silent.removed == [PROBE]
    assert bench.text(2) == "1 2 3 "


def test_run_outlives_a_defect_of_its_own_and_answers_everybody() -> None:
    class Defective(Bench):
        def deliver(self, deliveries: list[Delivery]) -> None:
            if isinstance(deliveries[0], Progress):
                self.inbox.put(Shutdown())
                raise ValueError("a defect")
            super().deliver(deliveries)

    bench = Defective()
    bench.submit(sequence(1, max_tokens=9))
    bench.scheduler.run()
    assert isinstance(bench.error(1), EngineFailed)


def test_a_thread_takes_its_turn_on_the_device_until_it_has_no_work(tmp_path: Path) -> None:
    file = tmp_path / "time-slices"

    def last_seen() -> float:
        return float(struct.unpack_from("d", file.read_bytes())[0])

    seen: list[float] = []
    bench = Bench(CountingEngine(lambda step: seen.append(last_seen())))
    bench.submit(sequence(1, max_tokens=2))
    thread = threading.Thread(target=bench.scheduler.run, args=(TimeSlices(file),), daemon=True)
    thread.start()
    patience.until(lambda: bench.text(1) == "1 2 " and last_seen() == 0, "the end of the turn")
    assert min(seen) > 0
    bench.inbox.put(Shutdown())
    thread.join(patience.PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_tokens_do_not_wait_for_the_turn_of_another_engine(tmp_path: Path) -> None:
    class Contended(TimeSlices):
        def begin(self) -> None:
            delivered.append(bench.text(1))
            super().begin()
            self.contended = True
            if len(delivered) == 5:
                bench.inbox.put(Shutdown())

    delivered: list[str] = []
    bench = Bench()
    bench.submit(sequence(1, max_tokens=50))
    bench.scheduler.run(Contended(tmp_path / "time-slices"))
    assert delivered == ["", "", "1 ", "1 2 ", "1 2 3 "]


def test_heartbeat_moves_with_the_engine_alone() -> None:
    bench = Bench(CountingEngine(failing_from(3)))
    bench.step(2)
    assert bench.scheduler.pulse.heartbeat == 0
    bench.submit(sequence(1, max_tokens=9))
    bench.step(5)
    assert bench.scheduler.pulse.heartbeat == 2


def test_tokens_are_counted_while_they_are_read_and_generated() -> None:
    bench = Bench(CountingEngine())
    for number in (1, 2):
        bench.submit(sequence(number, max_tokens=9))
    bench.step(3, seconds=TOGETHER_SECONDS)
    pulse = bench.scheduler.pulse
    before = pulse.generated_tokens
    assert before == sum(len(bench.text(number).split()) for number in (1, 2)) > 0
    bench.step(2)
    assert pulse.generated_tokens == before + 4
    assert pulse.read_tokens == bench.engine.prompt_tokens_read


actions = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 4), st.integers(1, 6)),
        st.tuples(st.just("abort"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 3), st.just(0)),
    ),
    max_size=60,
)


def play(bench: Bench, actions: list[tuple[str, int, int]]) -> None:
    submitted = 0
    for action, number, prompt in actions:
        match action:
            case "submit":
                bench.submit(sequence(submitted, max_tokens=number, prompt=prompt))
                submitted += 1
            case "abort":
                bench.inbox.put(Abort(number))
            case "step":
                bench.step(number)


@given(actions, st.integers(1, 3), st.sets(st.integers(1, 60), max_size=4))
def test_everybody_gets_exactly_one_end_and_places_are_never_exceeded(
    actions: list[tuple[str, int, int]], places: int, faults: set[int]
) -> None:
    bench = Bench(CountingEngine(failing_at(*faults)), max_concurrency=places)
    try:
        play(bench, actions)
        while bench.scheduler.running or bench.scheduler.waiting or not bench.inbox.empty():
            bench.step()
    except EngineLost:
        # Two failures of one sequence and one of the probe after them lose the engine.
        assert len(faults) > 2
        lost = True
    else:
        lost = False
    for i in range(sum(action == "submit" for action, *_ in actions)):
        kinds = [type(delivery) for delivery in bench.of(i)]
        if lost and (not kinds or kinds[-1] is Progress):
            continue
        assert [kind is Progress for kind in kinds] == [True] * (len(kinds) - 1) + [False]
        if kinds[-1] is Finished:
            count = bench.of(i)[-1].completion_tokens
            assert bench.text(i) == "".join(f"{n} " for n in range(1, count + 1))
    assert bench.engine.most <= places
    assert not bench.engine.held or faults


class StuckEngine(CountingEngine):
    """Its sequence 1 cannot go on after two tokens."""

    def step(self) -> list[Token]:
        return [
            Token(
                token.sequence, token.id, token.end, error="no way on" if (token.sequence, token.id) == (1, 3) else ""
            )
            for token in super().step()
        ]


@pytest.mark.parametrize("max_tokens", [3, 9])
def test_a_sequence_that_cannot_go_on_fails_alone(max_tokens: int) -> None:
    bench = Bench(StuckEngine())
    bench.submit(sequence(1, max_tokens=max_tokens), sequence(2, max_tokens=5))
    bench.step(8)
    *_, last = bench.of(1)
    assert isinstance(last, Failed)
    assert isinstance(last.error, EngineFailed)
    assert str(last.error) == "The required form could not be enforced. Simplify the schema."
    assert bench.text(2) == "1 2 3 4 5 "
    assert not bench.engine.held
    assert (bench.scheduler.running, bench.engine.resets) == (0, 0)


class Interjecting(NumberWriter):
    """Puts two tokens behind the token number `after`."""

    def __init__(self, sequence: Sequence, after: int = 2) -> None:
        super().__init__(sequence)
        self.rooms: list[int] = []
        self._after = after
        self._fed = 0

    def feed(self, token: Token) -> list[Event]:
        self._fed += 1
        return super().feed(token)

    def interjection(self, end: EndReason | None, room: int) -> tuple[int, ...]:
        self.rooms.append(room)
        return (90, 91) if self._fed == self._after else ()


class InterjectingBench(Bench):
    def open_writer(self, sequence: Sequence) -> Writer:
        self.writer = Interjecting(sequence)
        return self.writer


class Storing(CountingEngine):
    """Its prefix cache stores what is removed."""

    def remove(self, sequence: int) -> PromptUse | None:
        super().remove(sequence)
        return PromptUse(0, 5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_an_answer_goes_on_behind_an_interjection(at_once: int) -> None:
    bench = InterjectingBench(Storing(at_once=at_once))
    bench.submit(sequence(1, max_tokens=7, prompt=2))
    while not bench.engine.held or bench.engine.held[1].answered == 0:
        bench.step()
    continued = bench.engine.held[1]
    assert continued.prompt.tokens == [7, 7, 1, 2, 90, 91]
    assert (continued.max_tokens, continued.answered) == (3, 4)
    bench.step(10)
    assert bench.text(1) == "1 2 90 91 1 2 3 "
    finished = bench.of(1)[-1]
    assert isinstance(finished, Finished)
    assert (finished.completion_tokens, finished.prompt_use) == (7, PromptUse(0, 5))
    assert sum(isinstance(d, Started) for batch in bench.batches for d in batch) == 1
    assert bench.writer.rooms == [6, 5, 2, 1, 0]
    assert (bench.scheduler.running, len(bench.engine.held)) == (0, 0)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), BadRequest("no such bias")])
def test_an_answer_that_cannot_go_on_fails_alone(error: Exception) -> None:
    class Picky(CountingEngine):
        def insert(self, sequence: Sequence) -> None:
            if sequence.answered:
                raise error
            super().insert(sequence)

    bench = InterjectingBench(Picky())
    bench.submit(sequence(1, max_tokens=7))
    bench.step(9)
    assert isinstance(bench.error(1), EngineFailed if isinstance(error, RuntimeError) else BadRequest)
    assert (bench.scheduler.running, bench.engine.resets) == (0, 0)


def test_an_answer_whose_interjection_was_sent_does_not_begin_again() -> None:
    class EarlyBench(Bench):
        def open_writer(self, sequence: Sequence) -> Writer:
            return Interjecting(sequence, after=1)

    bench = EarlyBench(CountingEngine(failing_at(3)))
    bench.submit(sequence(1, max_tokens=7))
    bench.step(9)
    assert bench.text(1) == "1 90 91 "
    assert isinstance(bench.error(1), EngineFailed)


def test_an_answer_does_not_go_on_in_an_engine_that_fails_to_let_it_go() -> None:
    class Failing(CountingEngine):
        def remove(self, sequence: int) -> None:
            raise RuntimeError("injected")

    bench = InterjectingBench(Failing())
    bench.submit(sequence(1, max_tokens=7))
    bench.step(9)
    assert isinstance(bench.error(1), EngineFailed)
    assert "Try again" in str(bench.error(1))


def test_tokens_do_not_wait_while_an_interjection_is_read() -> None:
    class Looking(CountingEngine):
        def step(self) -> list[Token]:
            if self.reading() and self.held[2].answered:
                delivered.append((self.generated, len(bench.text(1).split())))
            tokens = super().step()
            self.generated += sum(token.sequence == 1 for token in tokens)
            return tokens

        generated = 0

    class OneInterjects(Bench):
        def open_writer(self, sequence: Sequence) -> Writer:
            return Interjecting(sequence) if sequence.id == 2 else NumberWriter(sequence)

    delivered: list[tuple[int, int]] = []
    bench = OneInterjects(Looking())
    bench.submit(sequence(1, max_tokens=50, prompt=2), sequence(2, max_tokens=9, prompt=6))
    bench.step(12)
    assert len(delivered) > 1
    assert all(generated == sent for generated, sent in delivered)


def test_tokens_do_not_wait_until_another_sequence_is_inserted() -> None:
    class Looking(CountingEngine):
        def insert(self, sequence: Sequence) -> None:
            seen.append(bench.text(1))
            super().insert(sequence)

    seen: list[str] = []
    bench = Bench(Looking())
    bench.submit(sequence(1, max_tokens=50))
    bench.step(3)
    assert bench.text(1) == "1 "
    bench.submit(sequence(2))
    bench.step()
    assert seen == ["", "1 2 "]


def test_tokens_do_not_wait_for_an_embedding() -> None:
    class Looking(CountingEngine):
        def embed(self, tokens: list[int]) -> bytes:
            seen.append(bench.text(1))
            return super().embed(tokens)

    seen: list[str] = []
    bench = Bench(Looking())
    bench.submit(sequence(1, max_tokens=50))
    bench.step(3)
    assert bench.text(1) == "1 "
    bench.submit(sequence(2, prompt=4, raw_prompt=RawPrompt(text="", embeds=True)))
    bench.step()
    assert seen == ["1 2 "]


def test_an_embedding_takes_a_place_for_no_longer_than_it_is_computed() -> None:
    bench = Bench(max_concurrency=1)
    embeds = sequence(1, prompt=4, raw_prompt=RawPrompt(text="", embeds=True))
    bench.now = 5.0
    bench.submit(embeds, sequence(2, prompt=9))
    bench.step(2)
    assert [delivery for batch in bench.batches for delivery in batch][:3] == [
        Started(1),
        Finished(
            sequence=1,
            events=[TextDelta(0, b64encode(bytes([7] * 4)).decode()), ChoiceFinished(0, "stop")],
            completion_tokens=0,
        ),
        Started(2),
    ]
    pulse = bench.scheduler.pulse
    assert (pulse.read_tokens, pulse.heartbeat, pulse.progress_at) == (6, 2, 5.0)
    assert bench.engine.most == 1
    alone = Bench()
    alone.now = 5.0
    alone.submit(embeds, msgspec.structs.replace(embeds, id=3))
    alone.step(2)
    pulse = alone.scheduler.pulse
    assert (pulse.read_tokens, pulse.heartbeat, pulse.progress_at) == (8, 2, 5.0)


def test_an_answer_goes_on_between_embeddings() -> None:
    class Slow(CountingEngine):
        def step(self) -> list[Token]:
            bench.now += TOGETHER_SECONDS
            return super().step()

    bench = Bench(Slow())
    bench.submit(sequence(1, max_tokens=50))
    bench.step()
    embeds = sequence(2, prompt=4, raw_prompt=RawPrompt(text="", embeds=True))
    bench.submit(*(msgspec.structs.replace(embeds, id=number) for number in range(2, 12)))
    for number in range(2, 12):
        before = bench.text(1)
        bench.step()
        assert len(bench.text(1)) > len(before)
        assert len(bench.of(number)) == 1
    bench.submit(embeds, msgspec.structs.replace(embeds, id=3))
    bench.inbox.put(Abort(3))
    computed = bench.scheduler.pulse.read_tokens
    bench.step(3)
    assert bench.scheduler.pulse.read_tokens == computed + 4


def test_the_probe_is_one_token_of_the_prompt_that_is_suspected() -> None:
    class Keeping(CountingEngine):
        probes: ClassVar[list[Sequence]] = []

        def insert(self, sequence: Sequence) -> None:
            super().insert(sequence)
            if sequence.id == PROBE:
                self.probes.append(sequence)

        def remove(self, sequence: int) -> None:
            pytest.fail("the probe has ended by itself")

    bench = Bench(Keeping(failing_at(1, 2)), max_concurrency=1)
    bench.submit(sequence(1, prompt=5), sequence(2, prompt=6))
    bench.step(9)
    assert isinstance(bench.error(1), EngineFailed)
    assert bench.text(2) == "1 2 3 "
    (probe,) = Keeping.probes
    assert probe == Sequence(
        id=PROBE,
        choice=0,
        request=GenerationRequest(messages=(Message(role="user"),)),
        prompt=Prompt([7]),
        sampling=SamplingParams(),
        max_tokens=1,
        start_before=1000.0,
    )
    assert not bench.engine.held
    assert (bench.scheduler.pulse.restarts, bench.engine.resets) == (2, 2)


def test_the_pulse_begins_with_nothing_but_the_limits() -> None:
    bench = Bench(max_concurrency=3)
    pulse = bench.scheduler.pulse
    assert repr(pulse) == "<Pulse 0 at 0.0 s, 0 running>"
    assert (pulse.restarts, pulse.generated_tokens, pulse.read_tokens) == (0, 0, 0)
    assert (pulse.longest_tokens, pulse.max_concurrency) == (1_000_000, 3)
    assert (pulse.memory_bytes, pulse.prefix_cache_bytes) == (None, None)


def test_progress_has_the_time_of_its_step() -> None:
    bench = Bench()
    bench.submit(sequence(1, max_tokens=2))
    for bench.now in (3.0, 4.0, 5.0, 6.0):
        bench.step()
    assert bench.scheduler.pulse.progress_at == 5.0
    assert bench.scheduler.pulse.generated_tokens == 2
