"""The `Engine` on MLX. Every call comes from the one thread that owns MLX."""

import logging
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from service.executor.engine.batch import Batch
from service.executor.engine.run import Drawn, Run
from service.executor.engine.solo import Solo
from service.executor.loading.device_memory import KV_SHARE, held_bytes, measure_cache_cost, room_bytes
from service.executor.prefix.cache import NoPrefixCache, Prefixes
from service.executor.scheduling.messages import PromptUse, Sequence
from service.executor.scheduling.protocols import Token
from service.executor.scheduling.turns import Turns
from service.executor.speculation.drafters import Drafters

log = logging.getLogger(__name__)

CHUNK_TOKENS_ON_CPU = 64
"""Measured: chunks of 64 to 128 tokens read a prompt 1.4 times faster than chunks of 2048. A request that comes in the
middle of one waits for its end."""

CHUNK_TOKENS_ON_GPU = 512
"""Large enough to fill the device, small enough that running sequences go on in between."""

LAST_CHUNKS = 2
"""So many chunks are read at once where a prompt ends with them: a question is read together with those that came with
it, however little it is longer than a chunk."""

READ_AND_DRAWN = 32
"""So many tokens are read and drawn from at once. Measured on a CPU: that takes a tenth to a quarter less than to read
all but the last and draw from that; with 64 tokens it takes as long, since each of them gets logits."""

STEPS_ALONE = 4
"""Who is left alone in the batch leaves it after so many steps: its state is copied then, and again when the next one
comes, who may be on its way."""

UNLIMITED = 2**60
"""Bytes, where nobody can tell how many there are."""


def default_chunk_tokens() -> int:
    return CHUNK_TOKENS_ON_CPU if mx.default_device() == mx.cpu else CHUNK_TOKENS_ON_GPU


class BatchEngine:
    """`model` and `end_tokens` (end-of-text ids) are mlx-lm's; a prompt is read `chunk_tokens` at a time.

    mlx-lm's batch reads all waiting prompts side by side, each as slowly as the longest of them. Here it gets a prompt
    only for its last chunk: the chunks before are read one prompt at a time, in the order that `Turns` gives, and a
    prompt that has been read gets its first token before another's chunk.

    With `drafters`, a greedy sequence that is alone is not in the batch but in a `Solo`, until another joins it. `room`
    tells how many more bytes can be allocated, None where that is unknown.
    """

    def __init__(
        self,
        model: Any,
        end_tokens: set[int],
        *,
        max_concurrency: int,
        chunk_tokens: int,
        prefixes: Prefixes | None = None,
        drafters: Drafters | None = None,
        room: Callable[[], int | None] = room_bytes,
    ) -> None:
        self.prompt_tokens_read = 0
        self._prefixes = prefixes or NoPrefixCache()
        self._room = room
        self._drafters = drafters or Drafters(lookup=False)
        self._model = model
        self._cost = measure_cache_cost(model)
        self._end_tokens = end_tokens
        self._max_concurrency = max_concurrency
        self._chunk_tokens = chunk_tokens
        self._start()

    def shortfall(self, sequences: list[Sequence]) -> int:
        return self._missing(sequences, self._prefixes.nbytes + self._drafters.nbytes)  # these give way

    def memory_bytes(self) -> int:
        return held_bytes()

    def prefix_cache_bytes(self) -> int:
        return self._prefixes.nbytes

    def insert(self, sequence: Sequence) -> None:
        self._make_room([*(run.sequence for run in self._runs.values()), sequence])
        run = Run(sequence, self._prefixes)
        if self._prefixes.shares:
            run.follow(self._runs.values(), self._chunk_tokens)
        self._runs[sequence.id] = run
        self._prefixes.rest(False)

    def remove(self, sequence: int) -> PromptUse | None:
        """What has been read stays in the prefix cache."""
        run = self._runs.pop(sequence, None)
        if run is None:
            return None
        if run.uid is None:
            self._keep(run)
            self._release_followers(run)
        else:
            self._keep_batched(run)
            self._batch.remove(run)
        return self._end(run)

    def step(self) -> list[Token]:
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
        self._solo: Solo | None = None
        self._steps_alone = 0
        self._batch = Batch(
            self._model,
            self._end_tokens,
            size=self._max_concurrency,
            last_tokens=LAST_CHUNKS * self._chunk_tokens,
        )

    # Memory

    def _make_room(self, sequences: list[Sequence]) -> None:
        """For these, as far as others give way."""
        if self._missing(sequences, 0) > 0:
            self._drafters.forget()
            mx.clear_cache()
        self._prefixes.allow(-self._missing(sequences, 0))

    def _missing(self, sequences: list[Sequence], spare_bytes: int, besides: int = 0) -> int:
        """Bytes short of running `sequences` and holding `besides` more, if `spare_bytes` are reclaimed."""
        room = self._room()
        if room is None:
            return -UNLIMITED
        needed = self._cost.bytes_for(_length(each) for each in sequences)
        return needed + besides - int(KV_SHARE * (room + self._kv_bytes() + spare_bytes))

    def _kv_bytes(self) -> int:
        caches = [run.cache for run in self._runs.values() if run.cache is not None]
        return self._batch.nbytes + sum(int(layer.nbytes) for cache in caches for layer in cache)

    # Prompts

    def _read_prompts(self) -> None:
        """At most one chunk, or together what is left of all prompts that are nearly read."""
        costs = {i: run.unread for i, run in self._runs.items() if not (run.answering or run.waits)}
        if not costs:
            return
        for run in self._runs.values():  # who is waited for has the turns of those who wait
            if run.leader is not None and run.leader.sequence.id in costs:
                leader = run.leader.sequence.id
                costs[leader] = min(costs[leader], run.unread)
        chosen = self._runs[self._turns.choose(costs)]
        if chosen.unread:
            chosen.reuse(self._prefixes)
        if chosen.unread and not self._is_last_chunk(chosen):
            self._read_chunk(chosen)
        elif last := [self._runs[i] for i in costs if self._is_last_chunk(self._runs[i])]:
            if self._can_be_solo(last[0]):
                self._begin_solo(last[0])
            else:
                self._join(last)

    def _is_last_chunk(self, run: Run) -> bool:
        return 0 < run.unread <= LAST_CHUNKS * self._chunk_tokens and run.next_stop is None

    def _read_chunk(self, run: Run) -> None:
        end = min(run.read + self._chunk_tokens, run.next_stop or len(run.tokens))
        self._read(run, end)
        followers = [other for other in self._runs.values() if other.leader is run and other.shared <= end]
        if followers or end in run.stops:
            self._keep(run)
        for follower in followers:
            follower.stop_following(self._prefixes)

    def _read(self, run: Run, end: int) -> None:
        if run.cache is None:
            run.cache = make_prompt_cache(self._model)
        self._model(mx.array([run.tokens[run.read : end]]), cache=run.cache)
        mx.eval([layer.state for layer in run.cache])
        mx.clear_cache()
        self.prompt_tokens_read += end - run.read
        run.read = end

    def _release_followers(self, leader: Run) -> None:
        for run in self._runs.values():
            if run.leader is leader:
                run.stop_following(self._prefixes)

    # Answers

    def _join(self, runs: list[Run]) -> None:
        """They take part in the batch from its next step on, which reads what is left of their prompts. So does who was
        alone until now."""
        for run in runs:
            self._keep(run)
        unread = sum(run.unread for run in runs)
        alone = self._end_solo()
        self._batch.insert(runs if alone is None else [alone, *runs])
        self.prompt_tokens_read += unread
        for run in runs:
            self._release_followers(run)

    def _can_be_solo(self, run: Run) -> bool:
        return len(self._runs) == 1 and run.is_greedy and self._drafters.active

    def _begin_solo(self, run: Run) -> None:
        """Reads the prompt but for its last tokens, and goes on with those."""
        if run.unread > READ_AND_DRAWN:
            self._read(run, len(run.tokens) - 1)
        self._keep(run)
        self.prompt_tokens_read += run.unread
        self._go_solo(run)

    def _go_solo(self, run: Run) -> None:
        draft_bytes = self._drafters.bytes_for(_length(run.sequence))
        fits = self._missing([run.sequence], 0, draft_bytes) <= 0
        self._solo = self._drafters.open(self._model, run, self._end_tokens, with_model=fits)

    def _end_solo(self) -> Run | None:
        solo, self._solo = self._solo, None
        if solo is None:
            return None
        solo.leave()
        return solo.run

    def _leave_batch_when_alone(self) -> None:
        (run,) = self._runs.values() if len(self._runs) == 1 else (None,)
        if run is None or run.uid is None or not run.answering or not self._can_be_solo(run):
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
            use = self._end(run)
        return Token(run.sequence.id, drawn.token, drawn.end, drawn.chances, error, use)

    def _end(self, run: Run) -> PromptUse:
        """After a sequence has left `_runs`. Tells how its prompt was read."""
        if self._solo is not None and self._solo.run is run:
            self._solo = None
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
            log.exception("The state of sequence %d is lost to the prefix cache", run.sequence.id)
        else:
            self._keep(run)

    def _keep(self, run: Run) -> None:
        """What the model has read: of the sequence's prompt, and of its answer. As far as the running sequences leave
        room for a copy: one that has ended is not among them, and what it holds is not free yet."""
        if run.cache is None or run.read <= run.reused:
            return
        self._prefixes.allow(-self._missing([other.sequence for other in self._runs.values()], 0))
        new = self._prefixes.keep(run.sequence.request.caller, run.tokens[: run.read], run.cache)
        answered = max(0, run.read - len(run.sequence.prompt.tokens))
        run.stored += max(0, new - answered)


def _length(sequence: Sequence) -> int:
    """In tokens, at its end."""
    return len(sequence.prompt.tokens) + sequence.max_tokens
