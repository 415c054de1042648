from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import msgspec

from service.executor.engine.constraint import Constraint
from service.executor.engine.sampling import Draw, greedy, make_logits_processors, make_sampler
from service.executor.loading.softmax import log_softmax
from service.executor.prefix.cache import Prefixes
from service.executor.prefix.tree import common_length
from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import EndReason, TokenChances


class Run:
    """`cache` has read `read` of `tokens`, `reused` of them from the prefix cache, which wants the state after each of
    `stops`. In the batch, `tokens`, `read` and `cache` stay unchanged. The run waits while `reader_ahead` reads
    `shared` tokens that both begin with."""

    __slots__ = (
        "answering",
        "cache",
        "changes_seen",
        "constraint",
        "processors",
        "question_tokens",
        "read",
        "reader_ahead",
        "reused",
        "sampler",
        "sequence",
        "shared",
        "stops",
        "stored",
        "tokens",
        "uid",
    )

    def __init__(self, sequence: Sequence, prefixes: Prefixes, *, padded: bool = True) -> None:
        self.sequence = sequence
        self.tokens = sequence.prompt.tokens
        self.sampler = make_sampler(sequence.sampling)
        self.question_tokens = len(self.tokens) - sequence.answered
        self.processors = make_logits_processors(sequence.sampling, self.question_tokens)
        grammar = sequence.prompt.grammar
        self.constraint = None if grammar is None else Constraint(grammar, self.question_tokens)
        if self.constraint is not None:
            self.processors.append(self.constraint)
        self.cache: list[Any] | None = None
        self.read = 0
        self.reused = 0
        self.stored = 0
        self.stops = prefixes.stops(sequence.prompt)
        if not (padded or self.stops):  # the batch gets the last token only and pads nothing
            self.stops = [stop for stop in [len(self.tokens) - 1] if stop > 0]
        self.uid: int | None = None
        self.answering = False
        self.reader_ahead: Run | None = None
        self.shared = 0
        self.changes_seen = -1
        self.reuse(prefixes)

    @property
    def unread(self) -> int:
        """Tokens of the prompt left to read; 0 in the batch, which reads the rest itself."""
        return max(0, len(self.sequence.prompt.tokens) - self.read) if self.uid is None else 0

    @property
    def left(self) -> int:
        """Wrong while the run is in the batch."""
        return self.sequence.max_tokens - (len(self.tokens) - len(self.sequence.prompt.tokens))

    @property
    def next_stop(self) -> int | None:
        return next((stop for stop in self.stops if stop > self.read), None)

    @property
    def waits(self) -> bool:
        return self.reader_ahead is not None

    @property
    def may_be_guessed(self) -> bool:
        return self.sequence.request.logprobs is None

    def draw(self, logits: mx.array, index: int) -> mx.array:
        """Draws the token at `index` of `tokens`, and one more for each further row."""
        self.draw_next_at(index)
        # 50,000 log-probabilities take 0.7 ms on a CPU. With 16 bits, they make ties, so they are not left out.
        likeliest = self.sampler is greedy and logits.dtype == mx.float32
        return self.sampler(logits if likeliest else log_softmax(logits))

    def draw_next_at(self, index: int) -> None:
        if isinstance(self.sampler, Draw):
            self.sampler.position = index - self.question_tokens

    def extend(self, tokens: list[int]) -> None:
        self.tokens += tokens
        if self.constraint is not None:
            self.constraint.follow(self.tokens)

    def permitted(self, draft: list[int]) -> list[int]:
        return draft if self.constraint is None else self.constraint.permitted(draft)

    def reuse(self, prefixes: Prefixes) -> None:
        # If nothing was kept since, the same would be found, and perhaps read from disk again.
        if self.read == self.reused and self.changes_seen != prefixes.changes:
            self.changes_seen = prefixes.changes
            reuse = prefixes.find(self.sequence.request.caller, self.tokens)
            self.cache, self.read, self.reused = reuse.caches, reuse.length, reuse.length

    def wait_for_reader(self, others: Iterable["Run"], at_least: int) -> None:
        """Waits for the run that saves most tokens, if it saves `at_least` as many."""
        for other in others:
            # The other has read at least as much, so waiting for it is never slower.
            if other.unread and other.read >= self.read:
                shared = self._shared_with(other)
                if shared - max(self.read, self.shared) >= at_least:
                    self.reader_ahead, self.shared = other, shared

    def stop_waiting(self, prefixes: Prefixes) -> None:
        self.reader_ahead, self.shared = None, 0
        self.reuse(prefixes)

    def _shared_with(self, other: "Run") -> int:
        mine, others = self.sequence.request, other.sequence.request
        if mine.caller != others.caller or others.no_store:  # its state is not kept
            return 0
        common = common_length(self.sequence.prompt.tokens, other.sequence.prompt.tokens)
        return max((stop for stop in other.stops if stop <= common), default=0) if other.stops else common


class Drawn(msgspec.Struct, frozen=True):
    run: Run
    token: int
    end: EndReason | None = None
    chances: TokenChances | None = None
