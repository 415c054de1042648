import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from service.device.memory import missing_bytes
from service.executor.engine.batch import Batch
from service.executor.engine.chunks import LAST_CHUNKS, ChunkShape, ChunkSizes, Surroundings
from service.executor.engine.embedding import embedding
from service.executor.engine.lanes import Lanes
from service.executor.engine.run import Drawn, Run
from service.executor.engine.single import Single
from service.executor.engine.solo import Solo
from service.executor.loading.batching import Batching
from service.executor.loading.cache_cost import measure_cache_cost
from service.executor.loading.cache_kinds import can_take_back, growing_once
from service.executor.loading.device import held_bytes, room_bytes
from service.executor.prefix.cache import NoPrefixCache, Prefixes
from service.executor.scheduling.messages import PromptUse, Sequence
from service.executor.scheduling.protocols import Token
from service.executor.scheduling.turns import Turns
from service.executor.speculation.drafter import MOST_DRAFTED
from service.executor.speculation.drafters import Drafters
from service.executor.speculation.experience import FIRST_RIGHT
from service.queries import PrefixBranch
from service.tallies import Tuning

log = logging.getLogger(__name__)

# A lone sequence reads up to this many last tokens and draws in one step. Measured on a CPU: 10 to 25 % faster than
# reading all but the last token first. At 64 tokens it is no faster, because each of them gets logits.
READ_AND_DRAWN = 32

# Steps a lone sequence stays in the batch before it moves to `Solo`. Moving copies its state, and another request may
# arrive any moment.
STEPS_ALONE = 4


class BatchEngine:
    """`end_tokens` are end-of-text ids; `room` returns the bytes that can still be allocated. With `drafters`, a lone
    sequence runs in a `Solo`."""

    def __init__(
        self,
        model: Any,
        end_tokens: set[int],
        *,
        batching: Batching,
        chunks: ChunkSizes,
        prefixes: Prefixes | None = None,
        drafters: Drafters | None = None,
        room: Callable[[], int | None] = room_bytes,
    ) -> None:
        self.prompt_tokens_read = 0
        self._reserved: Mapping[int, int] = {}
        self._prefixes = prefixes or NoPrefixCache()
        self._room = room
        self._drafters = drafters or Drafters(lookup=False)
        self._model = model
        self._cost = measure_cache_cost(model)
        self._cuts = can_take_back(model)
        self._end_tokens = end_tokens
        self._batching = batching
        self._chunks = chunks
        self._chunk_tokens = chunks.first
        self._lanes = Lanes()
        self._start()
        mx.reset_peak_memory()  # the load takes more for a moment

    def shortfall(self, lengths: list[int]) -> int:
        return self._missing(lengths, self._reclaimable)

    def longest(self) -> int:
        return self._cost.longest(self._room(), self._kv_bytes() + self._reclaimable)

    def reserve(self, lengths: Mapping[int, int]) -> None:
        self._reserved = lengths
        missing, kept = self._missing(list(lengths.values()), 0), self._prefixes.nbytes
        self._prefixes.set_headroom(-missing)
        if missing > 0:
            if missing > kept - self._prefixes.nbytes:
                self._drafters.forget()
            mx.clear_cache()  # last, because what was kept is buffers now

    def memory_bytes(self) -> int:
        return held_bytes()

    def peak_bytes(self) -> int:
        return mx.get_peak_memory()

    def tuning(self) -> Tuning:
        chunk = self._chunks.chosen
        return Tuning(
            chunk_tokens=chunk.tokens,
            lanes=chunk.lanes,
            guesses=self._drafters.experience.times.useful_guesses(MOST_DRAFTED, FIRST_RIGHT),
            file_tokens=self._prefixes.file_tokens(self._cost.fixed, self._cost.per_token),
        )

    def prefix_cache_bytes(self) -> int:
        return self._prefixes.nbytes

    def prefixes(self) -> list[PrefixBranch]:
        return self._prefixes.outline()

    def insert(self, sequence: Sequence) -> None:
        self._keep_prompts(answering=False)  # this one may begin alike
        run = Run(sequence, self._prefixes, padded=self._batching.padded)
        if self._prefixes.shares:
            run.wait_for_reader(self._runs.values(), self._chunk_tokens)
        self._runs[sequence.id] = run
        self._prefixes.rest(False)

    def remove(self, sequence: int) -> PromptUse | None:
        run = self._runs.pop(sequence, None)
        if run is None:
            return None
        if run.uid is None:
            self._keep(run)
            self._release_waiting(run)
        else:
            self._keep_batched(run)
            self._batch.remove(run)
        return self._end(run)

    def embed(self, tokens: list[int]) -> bytes:
        return embedding(self._model, tokens, self._chunk_tokens)

    def reading(self) -> dict[int, int]:
        return {number: run.read for number, run in self._runs.items() if run.unread and not run.answering}

    def step(self) -> list[Token]:
        self._keep_prompts(answering=True)
        self._read_prompts()
        drawn = self._batch.step() if self._solo is None else self._solo.step()
        tokens = [self._token(each) for each in drawn]
        self._leave_batch_when_alone()
        return tokens

    def reset(self) -> None:
        self._batch.close()
        self._drafters.forget()
        self._start()
        mx.clear_cache()

    def close(self) -> None:
        self._batch.close()
        self._prefixes.close()

    def _start(self) -> None:
        self._turns = Turns()
        self._runs: dict[int, Run] = {}
        self._unkept: dict[int, _ReadPrompt] = {}
        self._solo: Solo | Single | None = None
        self._steps_alone = 0
        last_tokens = LAST_CHUNKS * self._chunk_tokens
        self._batch = Batch(self._model, self._end_tokens, self._batching, last_tokens=last_tokens)

    # Memory

    @property
    def _reclaimable(self) -> int:
        return self._prefixes.nbytes + self._drafters.nbytes

    def _length(self, run: Run) -> int:
        whole = len(run.sequence.prompt.tokens) + run.sequence.max_tokens
        return self._reserved.get(run.sequence.id, whole)

    def _missing(self, lengths: list[int], spare_bytes: int, besides: int = 0) -> int:
        """Returns the bytes missing for sequences of `lengths` and `besides`, if `spare_bytes` are reclaimed."""
        needed = self._cost.bytes_for(lengths) + besides
        return missing_bytes(needed, self._room(), self._kv_bytes() + spare_bytes)

    def _kv_bytes(self) -> int:
        caches = [run.cache for run in self._runs.values() if run.cache is not None]
        return self._batch.nbytes + sum(int(layer.nbytes) for cache in caches for layer in cache)

    # Prompts: one at a time, except for their last chunks, because mlx-lm's batch pads all prompts to the longest

    def _read_prompts(self) -> None:
        """Reads one chunk of one prompt, or starts all prompts that have only the last chunk left."""
        if self._solo is not None and not self._batching.possible:
            return
        costs = {i: run.unread for i, run in self._runs.items() if not (run.answering or run.waits)}
        if not costs:
            return
        for run in self._runs.values():  # a run that others wait for takes their turns
            if run.reader_ahead is not None and run.reader_ahead.sequence.id in costs:
                ahead = run.reader_ahead.sequence.id
                costs[ahead] = min(costs[ahead], run.unread)
        chosen = self._runs[self._turns.choose(costs)]
        if chosen.unread:
            chosen.reuse(self._prefixes)
        if chosen.unread and not self._is_last_chunk(chosen):
            self._read_chunk(chosen)
        elif last := self._ending([self._runs[i] for i in costs]):
            if self._can_be_solo(last[0]) or not self._batching.possible:
                self._begin_solo(last[0])
            else:
                self._join(last)

    def _is_last_chunk(self, run: Run) -> bool:
        is_short = 0 < run.unread <= self._chunks.most_at_end(self._is_beside(run))
        is_end = is_short and run.next_stop is None and self._awaited_end(run) is None
        return is_end and self._chunks.scores_fit(run.unread, run.read, self._room)

    def _ending(self, runs: list[Run]) -> list[Run]:
        """Returns those whose ends are read now, in one batch."""
        last = [run for run in runs if self._is_last_chunk(run)]
        if len(last) < 2:
            return last
        around = Surroundings(read=max(run.read for run in last), beside=True, room=self._room())
        return last[: self._chunks.ends_together([run.unread for run in last], around)]

    def _is_beside(self, run: Run) -> bool:
        # Those that wait for what this one reads have it sooner from the fastest chunks.
        return any(not (other is run or other.waits) for other in self._runs.values())

    def _awaited_end(self, run: Run) -> int | None:
        """Returns where those that wait want the state next, or None if that saves less than a chunk."""
        ends = [other.shared for other in self._runs.values() if other.reader_ahead is run]
        end = min(*ends, len(run.tokens) - 1) if ends else 0
        # For less, reading all ends in one batch is less work.
        return end if (end - run.read) * len(ends) >= self._chunk_tokens else None

    def _read_chunk(self, run: Run) -> None:
        around = Surroundings(read=run.read, beside=self._is_beside(run), room=self._room())
        chunk = self._chunks.choose(around)
        # The last chunks stay, for the batch.
        last = len(run.tokens) - 1
        end = min(run.read + chunk.tokens, run.next_stop or last, self._awaited_end(run) or last)
        self._chunks.learn(ChunkShape(end - around.read, chunk.lanes), self._read(run, end, chunk.lanes))
        # The next state of a prompt that ends in the batch is kept after its answer.
        ends = self._batching.possible and self._is_last_chunk(run)
        waiting = [other for other in self._runs.values() if other.reader_ahead is run]
        released = [other for other in waiting if ends or other.shared <= end]
        if released or end in run.stops:
            self._keep(run)
        for other in released:
            other.stop_waiting(self._prefixes)

    def _read(self, run: Run, end: int, lanes: int) -> float:
        """Returns the seconds that it took."""
        started = time.perf_counter()
        if run.cache is None:
            run.cache = make_prompt_cache(self._model)
        with growing_once(run.cache, run.unread):
            self._lanes.read(self._model, run.tokens[run.read : end], run.cache, lanes)
        mx.clear_cache()
        seconds = time.perf_counter() - started
        self._prefixes.learn_reading(end - run.read, seconds)
        self.prompt_tokens_read += end - run.read
        run.read = end
        return seconds

    def _release_waiting(self, ahead: Run) -> None:
        for run in self._runs.values():
            if run.reader_ahead is ahead:
                run.stop_waiting(self._prefixes)

    # Answers

    def _join(self, runs: list[Run]) -> None:
        for run in runs:
            self._keep_after_first_token(run)
        unread = sum(run.unread for run in runs)
        alone = self._end_solo()
        self._batch.insert(runs if alone is None else [alone, *runs])
        self.prompt_tokens_read += unread
        for run in runs:
            self._release_waiting(run)

    def _can_be_solo(self, run: Run) -> bool:
        return len(self._runs) == 1 and run.may_be_guessed and self._drafters.active

    def _begin_solo(self, run: Run) -> None:
        if run.unread > READ_AND_DRAWN:
            self._read(run, len(run.tokens) - 1, self._chunks.chosen.lanes)
        self._keep_after_first_token(run)
        self.prompt_tokens_read += run.unread
        self._go_solo(run)

    def _go_solo(self, run: Run) -> None:
        if not self._can_be_solo(run):
            self._solo = Single(self._model, run, end_tokens=self._end_tokens)
            return
        length = self._length(run)
        fits = self._missing([length], 0, self._drafters.bytes_for(length)) <= 0
        forced = run.constraint.forced if run.constraint is not None else None
        drafters = self._drafters.choose(run.sequence.request.caller, run.tokens, forced, with_model=fits)
        self._solo = Solo(self._model, run, drafters, end_tokens=self._end_tokens, experience=self._drafters.experience)

    def _end_solo(self) -> Run | None:
        solo, self._solo = self._solo, None
        if solo is None:
            return None
        solo.leave()
        return solo.run

    def _leave_batch_when_alone(self) -> None:
        (run,) = self._runs.values() if len(self._runs) == 1 else (None,)
        # The batch has read the last token already, which has to be taken back.
        leaves = self._cuts and run is not None and run.uid is not None and run.answering and self._can_be_solo(run)
        if run is None or not leaves:
            self._steps_alone = 0
            return
        self._steps_alone += 1
        if self._steps_alone >= STEPS_ALONE:
            self._steps_alone = 0
            self._batch.take(run)
            self._go_solo(run)

    def _token(self, drawn: Drawn) -> Token:
        run = drawn.run
        run.answering = True
        error = run.constraint.error if run.constraint is not None else ""
        use = None
        if drawn.end is not None:
            del self._runs[run.sequence.id]
            self._keep(run)
            if not run.sequence.request.no_store:
                self._prefixes.conclude(run.sequence.request.caller, run.tokens[: run.read], run.stops)
            use = self._end(run)
        return Token(run.sequence.id, drawn.token, drawn.end, drawn.chances, error, use)

    def _end(self, run: Run) -> PromptUse:
        if self._solo is not None and self._solo.run is run:
            self._solo = None
        self._unkept.pop(run.sequence.id, None)
        if not self._runs:
            self._prefixes.rest(True)
        return PromptUse(run.reused, run.stored)

    # The prefix cache

    def _keep_batched(self, run: Run) -> None:
        if not self._prefixes.shares:
            return
        try:
            self._batch.restore(run)
        except Exception:
            log.exception("The prefix cache has lost the state of sequence %d", run.sequence.id)
        else:
            self._keep(run)

    def _keep_after_first_token(self, run: Run) -> None:
        if run.cache is not None and self._can_wait(run):
            self._unkept[run.sequence.id] = _ReadPrompt(run, run.tokens[: run.read], run.cache)
        else:
            self._keep(run)

    def _can_wait(self, run: Run) -> bool:
        # A state that cannot be cut would be a later one. The batch copies the state, so it would exist twice.
        awaited = any(other.reader_ahead is run for other in self._runs.values())
        if self._prefixes.needs_boundaries or awaited:
            return False
        twice = sum(int(layer.nbytes) for layer in run.cache or ())
        return self._missing([self._length(other) for other in self._runs.values()], 0, twice) <= 0

    def _keep_prompts(self, *, answering: bool) -> None:
        """`answering` keeps only those whose first token is delivered."""
        for number in [number for number, each in self._unkept.items() if each.run.answering or not answering]:
            unkept = self._unkept.pop(number)
            self._keep_state(unkept.run, unkept.tokens, unkept.caches)

    def _keep(self, run: Run) -> None:
        if run.cache is not None:
            self._keep_state(run, run.tokens[: run.read], run.cache)

    def _keep_state(self, run: Run, tokens: list[int], caches: list[Any]) -> None:
        # The running sequences come first. An ended run is not among them, though it still holds its memory.
        if len(tokens) <= run.reused or run.sequence.request.no_store:
            return
        self._prefixes.set_headroom(-self._missing([self._length(other) for other in self._runs.values()], 0))
        new = self._prefixes.keep(run.sequence.request.caller, tokens, caches)
        answered = max(0, len(tokens) - len(run.sequence.prompt.tokens))
        run.stored += max(0, new - answered)


class _ReadPrompt(NamedTuple):
    """The state of `tokens`, which the prefix cache gets once the first token is delivered."""

    run: Run
    tokens: list[int]
    caches: list[Any]
