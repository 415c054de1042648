"""The `Engine` on mlx-lm's `BatchGenerator`. Every call comes from the one thread that owns MLX."""

import logging
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from service.executor.constraint import Constraint
from service.executor.device_memory import KV_SHARE, held_bytes, measure_cache_cost, room_bytes
from service.executor.messages import PromptUse, Sequence
from service.executor.prefix.cache import NoPrefixCache, Prefixes
from service.executor.sampling import greedy
from service.executor.scheduler import Token, TokenChances
from service.executor.starting import Start
from service.executor.turns import Turns

log = logging.getLogger(__name__)

CHUNK_TOKENS_ON_CPU = 64
"""Measured: chunks of 64 to 128 tokens read a prompt 1.4 times faster than chunks of 2048. A request that comes in the
middle of one waits for its end."""

CHUNK_TOKENS_ON_GPU = 512
"""Large enough to fill the device, small enough that running sequences go on in between."""

LAST_CHUNKS = 2
"""So many chunks are read at once where a prompt ends with them: a question is read together with those that came with
it, however little it is longer than a chunk."""


def default_chunk_tokens() -> int:
    return CHUNK_TOKENS_ON_CPU if mx.default_device() == mx.cpu else CHUNK_TOKENS_ON_GPU


class BatchEngine:
    """`model` and `end_tokens` (end-of-text ids) are mlx-lm's; a prompt is read `chunk_tokens` at a time.

    mlx-lm's batch reads all waiting prompts side by side, each as slowly as the longest of them. Here it gets a prompt
    only for its last chunk: the chunks before are read one prompt at a time, in the order that `Turns` gives, and a
    prompt that has been read gets its first token before another's chunk.
    """

    def __init__(
        self,
        model: Any,
        end_tokens: set[int],
        *,
        max_concurrency: int,
        chunk_tokens: int,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.prompt_tokens_read = 0
        self._prefixes = prefixes or NoPrefixCache()
        self._model = model
        self._cost = measure_cache_cost(model)
        self._end_tokens = sorted(end_tokens)
        self._max_concurrency = max_concurrency
        self._chunk_tokens = chunk_tokens
        self._start()

    def shortfall(self, sequences: list[Sequence]) -> int:
        return self._missing(sequences, self._prefixes.nbytes)  # the prefix cache gives way

    def memory_bytes(self) -> int:
        return held_bytes()

    def prefix_cache_bytes(self) -> int:
        return self._prefixes.nbytes

    def insert(self, sequence: Sequence) -> None:
        others = [
            *(start.sequence for start in self._starting.values() if start.uid is None),
            *self._sequences.values(),
        ]
        self._prefixes.give_back(self._missing([*others, sequence], 0))
        start = Start(sequence, self._prefixes)
        if self._prefixes.shares:
            start.follow(self._starting.values(), self._chunk_tokens)
        self._starting[sequence.id] = start
        self._stored[sequence.id] = 0
        self._prefixes.rest(False)

    def remove(self, sequence: int) -> PromptUse | None:
        """What has been read stays in the prefix cache."""
        start = self._starting.pop(sequence, None)
        uid = self._uids.pop(sequence, None)
        if uid is not None:
            removed = self._sequences.pop(uid)
            self._constraints.pop(uid, None)
            self._keep_running(removed, uid)
            self._batch.remove([uid])
        elif start is not None:
            self._keep_start(start)
            self._release_followers(start)
        return self._end(sequence)

    def step(self) -> list[Token]:
        self._read_prompts()
        _, responses = self._batch.next()
        return [self._token(response) for response in responses]

    def _missing(self, sequences: list[Sequence], spare_bytes: int) -> int:
        """The bytes that are missing to run these, where besides what is free these can be."""
        room = room_bytes()
        if room is None:
            return 0
        needed = self._cost.bytes_for(len(each.prompt.tokens) + each.max_tokens for each in sequences)
        return needed - int(KV_SHARE * (room + self._kv_bytes() + spare_bytes))

    def _kv_bytes(self) -> int:
        caches = [start.cache for start in self._starting.values() if start.cache is not None]
        held: int = self._batch.prompt_cache_nbytes + sum(layer.nbytes for cache in caches for layer in cache)
        return held

    def _read_prompts(self) -> None:
        """At most one chunk, or together what is left of all prompts that are nearly read."""
        costs = {i: start.unread for i, start in self._starting.items() if not start.waits}
        if not costs:
            return
        for start in self._starting.values():  # who is waited for has the turns of those who wait
            if start.leader is not None and start.leader.sequence.id in costs:
                leader = start.leader.sequence.id
                costs[leader] = min(costs[leader], start.unread)
        chosen = self._starting[self._turns.choose(costs)]
        if chosen.unread:
            chosen.reuse(self._prefixes)
        if chosen.unread and not self._is_last_chunk(chosen):
            self._read_chunk(chosen)
        elif last := [start for i, start in self._starting.items() if i in costs and self._is_last_chunk(start)]:
            self._join(last)

    def _is_last_chunk(self, start: Start) -> bool:
        return 0 < start.unread <= LAST_CHUNKS * self._chunk_tokens and start.next_stop is None

    def _read_chunk(self, start: Start) -> None:
        if start.cache is None:
            start.cache = make_prompt_cache(self._model)
        end = min(start.read + self._chunk_tokens, start.next_stop or len(start.sequence.prompt.tokens))
        with mx.stream(self._batch.stream):
            self._model(mx.array([start.sequence.prompt.tokens[start.read : end]]), cache=start.cache)
            mx.eval([layer.state for layer in start.cache])
            mx.clear_cache()
        self.prompt_tokens_read += end - start.read
        start.read = end
        followers = [other for other in self._starting.values() if other.leader is start and other.shared <= end]
        if followers or end in start.stops:
            self._keep_start(start)
        for follower in followers:
            follower.stop_following(self._prefixes)

    def _join(self, starts: list[Start]) -> None:
        """They take part in the batch from its next step on, which reads what is left of their prompts."""
        for start in starts:
            self._keep_start(start)
        prompts = [start.sequence.prompt.tokens for start in starts]
        uids = self._batch.insert(
            [prompt[start.read :] for prompt, start in zip(prompts, starts, strict=True)],
            max_tokens=[start.sequence.max_tokens for start in starts],
            caches=[start.cache for start in starts],
            all_tokens=[prompt[: start.read] for prompt, start in zip(prompts, starts, strict=True)],
            samplers=[start.sampler for start in starts],
            logits_processors=[start.processors for start in starts],
        )
        for start, uid in zip(starts, uids, strict=True):
            self.prompt_tokens_read += start.unread
            start.uid, start.cache = uid, None
            self._reused[start.sequence.id] = start.reused
            self._uids[start.sequence.id] = uid
            self._sequences[uid] = start.sequence
            if start.constraint is not None:
                self._constraints[uid] = start.constraint
            self._release_followers(start)

    def reset(self) -> None:
        self._batch.close()
        self._start()
        mx.clear_cache()

    def close(self) -> None:
        self._batch.close()
        self._prefixes.close()

    def _release_followers(self, leader: Start) -> None:
        for start in self._starting.values():
            if start.leader is leader:
                start.stop_following(self._prefixes)

    def _keep_start(self, start: Start) -> None:
        if start.cache is not None and start.read > start.reused:
            self._keep(start.sequence, start.sequence.prompt.tokens[: start.read], start.cache)

    def _keep_running(self, sequence: Sequence, uid: int) -> None:
        if not self._prefixes.shares:
            return
        try:
            caches, tokens = self._batch.extract_cache([uid])[uid]
        except Exception:
            log.exception("The state of sequence %d is lost to the prefix cache", sequence.id)
        else:
            self._keep(sequence, tokens, caches)

    def _keep(self, sequence: Sequence, tokens: list[int], caches: list[Any]) -> None:
        """`caches` have read `tokens`: of the sequence's prompt, and of its answer."""
        new = self._prefixes.keep(sequence.request.caller, tokens, caches)
        answered = max(0, len(tokens) - len(sequence.prompt.tokens))
        self._stored[sequence.id] += max(0, new - answered)

    def _end(self, sequence: int) -> PromptUse | None:
        """Forgets a sequence, whose prompt was read like this."""
        stored, reused = self._stored.pop(sequence, 0), self._reused.pop(sequence, 0)
        if not self._stored:
            self._prefixes.rest(True)
        return PromptUse(reused, stored)

    def _start(self) -> None:
        self._turns = Turns()
        self._starting: dict[int, Start] = {}
        self._reused: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        self._uids: dict[int, int] = {}
        self._sequences: dict[int, Sequence] = {}
        self._constraints: dict[int, Constraint] = {}
        self._batch: Any = BatchGenerator(
            self._model,
            stop_tokens=[[token] for token in self._end_tokens],
            sampler=greedy,
            completion_batch_size=self._max_concurrency,
            prefill_batch_size=self._max_concurrency,
            prefill_step_size=LAST_CHUNKS * self._chunk_tokens,
            stream=mx.default_stream(mx.default_device()),
        )

    def _token(self, response: Any) -> Token:
        sequence = self._sequences[response.uid]
        self._starting.pop(sequence.id, None)
        chances = None
        if sequence.request.logprobs is not None:
            chances = token_chances(response.logprobs, response.token, sequence.request.logprobs)
        constraint = self._constraints.get(response.uid)
        error = constraint.error if constraint is not None else ""
        use = None
        if response.finish_reason is not None:
            self._constraints.pop(response.uid, None)
            del self._sequences[response.uid]
            del self._uids[sequence.id]
            self._keep(sequence, response.all_tokens, response.prompt_cache)
            use = self._end(sequence.id)
        return Token(sequence.id, response.token, response.finish_reason, chances, error, use)


def token_chances(logprobs: mx.array, token: int, top: int) -> TokenChances:
    """Of one row `[vocabulary]`, evaluated already. Read with NumPy, in place: an MLX operation would wait behind the
    next token, which is being computed by now. What a grammar rules out is no alternative."""
    row = np.asarray(logprobs if logprobs.dtype == mx.float32 else logprobs.astype(mx.float32))
    if top == 0:
        return TokenChances(float(row[token]), ())
    best = np.argpartition(row, -top)[-top:]
    best = best[np.argsort(-row[best], kind="stable")]
    return TokenChances(float(row[token]), tuple((int(i), float(row[i])) for i in best if row[i] > -np.inf))
