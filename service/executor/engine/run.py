"""A sequence while the engine has it: how much of it the model has read, what it waits for, how tokens are drawn."""

from collections.abc import Iterable
from typing import Any

import msgspec

from service.executor.engine.constraint import Constraint
from service.executor.engine.sampling import greedy, make_logits_processors, make_sampler
from service.executor.prefix.cache import Prefixes
from service.executor.prefix.tree import common_length
from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import EndReason, TokenChances


class Run:
    """`tokens` are the prompt, and what has been drawn since; `read` of them are in `cache`, `reused` of them from the
    prefix cache, which wants the state after each of `stops`, and has been given `stored` tokens of the prompt.

    While it is in the batch `uid` is its name there, and `tokens`, `read` and `cache` stand as they were when it came.
    `answering`: its first token has been drawn.

    Where another one, the `leader`, is reading what this one would read, it waits until that has read the `shared`
    tokens, and takes them over: the answers to one request, or requests of one agent that come together.
    """

    __slots__ = (
        "answering",
        "cache",
        "constraint",
        "leader",
        "processors",
        "read",
        "reused",
        "sampler",
        "sequence",
        "shared",
        "stops",
        "stored",
        "tokens",
        "uid",
    )

    def __init__(self, sequence: Sequence, prefixes: Prefixes) -> None:
        self.sequence = sequence
        self.tokens = sequence.prompt.tokens
        self.sampler = make_sampler(sequence.sampling)
        self.processors = make_logits_processors(sequence.sampling, len(sequence.prompt.tokens))
        grammar = sequence.prompt.grammar
        self.constraint = None if grammar is None else Constraint(grammar, len(self.tokens))
        if self.constraint is not None:
            self.processors.append(self.constraint)
        self.cache: list[Any] | None = None
        self.read = 0
        self.reused = 0
        self.stored = 0
        self.stops = prefixes.stops(sequence.prompt)
        self.uid: int | None = None
        self.answering = False
        self.leader: Run | None = None
        self.shared = 0
        self.reuse(prefixes)

    @property
    def unread(self) -> int:
        """Of the prompt, in tokens; none where the batch reads it."""
        return max(0, len(self.sequence.prompt.tokens) - self.read) if self.uid is None else 0

    @property
    def left(self) -> int:
        """How many more tokens it may draw. Not known here while it is in the batch."""
        return self.sequence.max_tokens - (len(self.tokens) - len(self.sequence.prompt.tokens))

    @property
    def next_stop(self) -> int | None:
        return next((stop for stop in self.stops if stop > self.read), None)

    @property
    def waits(self) -> bool:
        return self.leader is not None

    @property
    def is_greedy(self) -> bool:
        """Each token is the likeliest as the model has it, of those that its grammar permits; and nothing else of it is
        asked for."""
        plain = all(processor is self.constraint for processor in self.processors)
        return plain and self.sampler is greedy and self.sequence.request.logprobs is None

    def extend(self, tokens: list[int]) -> None:
        """These have been drawn, outside of the batch."""
        self.tokens += tokens
        if self.constraint is not None:
            self.constraint.follow(self.tokens)

    def permitted(self, draft: list[int]) -> list[int]:
        """As much of the beginning of a draft as may come next."""
        return draft if self.constraint is None else self.constraint.permitted(draft)

    def reuse(self, prefixes: Prefixes) -> None:
        """Begins with what is known. Again, as long as nothing of its own has been read: more may be known by now."""
        if self.read == self.reused:
            reuse = prefixes.find(self.sequence.request.caller, self.tokens)
            self.cache, self.read, self.reused = reuse.caches, reuse.length, reuse.length

    def follow(self, others: Iterable["Run"], at_least: int) -> None:
        """Takes for its leader who spares it most, if that is `at_least` so many tokens. Waiting takes no longer than
        reading would: the leader has read as much already, and reads the rest as fast."""
        for other in others:
            if other.unread and other.read >= self.read:
                shared = self._shared_with(other)
                if shared - max(self.read, self.shared) >= at_least:
                    self.leader, self.shared = other, shared

    def stop_following(self, prefixes: Prefixes) -> None:
        self.leader, self.shared = None, 0
        self.reuse(prefixes)

    def _shared_with(self, other: "Run") -> int:
        """How many tokens both have in common, of which the other's state will be known."""
        if self.sequence.request.caller != other.sequence.request.caller:
            return 0
        common = common_length(self.sequence.prompt.tokens, other.sequence.prompt.tokens)
        return max((stop for stop in other.stops if stop <= common), default=0) if other.stops else common


class Drawn(msgspec.Struct, frozen=True):
    """A token that `run` goes on with. With `end` it is the last, and `run` has its `tokens` and its `cache` again."""

    run: Run
    token: int
    end: EndReason | None = None
    chances: TokenChances | None = None
