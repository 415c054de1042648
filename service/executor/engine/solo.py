"""One sequence, decoded alone: several tokens at a time where somebody guesses them right."""

import logging
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from service.executor.engine.run import Drawn, Run
from service.executor.engine.sampling import greedy
from service.executor.prefix.tree import common_length
from service.executor.scheduling.protocols import EndReason
from service.executor.speculation.drafter import Drafter, DraftTally, Pace

log = logging.getLogger(__name__)

STEPS_BETWEEN_CLEARING = 512
"""As mlx-lm's batch does: what KV state has outgrown is not kept for ever."""


def can_take_back(model: Any) -> bool:
    """Whether its state can be cut to any of its tokens, at any length. A window that has slid has lost what it would
    go back to, and a recurrent state never had it."""
    leaves = [leaf for layer in make_prompt_cache(model) for leaf in getattr(layer, "caches", [layer])]
    slides = any(getattr(leaf, "max_size", None) or getattr(leaf, "chunk_size", None) for leaf in leaves)
    return can_trim_prompt_cache(leaves) and not slides


class Solo:
    """Decodes a greedy `run`, of which the model has read all, or all but the last tokens: the first step reads those,
    and `leave` may come after any step.

    A guess is right where the model, which reads all of a draft at once, draws the same: what comes out is what the
    model draws, whoever guessed. Where nobody guesses, the next token is being computed while the last one is looked
    at, as in mlx-lm's batch; but for the first, which is out at once: MLX starts little on a CPU before it is done with
    what was started before.
    """

    def __init__(
        self, model: Any, run: Run, drafters: list[Drafter], *, end_tokens: set[int], tally: DraftTally
    ) -> None:
        self.run = run
        self._model = model
        self._cache: list[Any] = run.cache or make_prompt_cache(model)
        self._sources = [_Source(drafter) for drafter in drafters]
        self._end_tokens = end_tokens
        self._tally = tally
        self._ahead: mx.array | None = None  # drawn from all of the tokens, and not looked at yet
        self._steps = 0
        run.tokens, run.cache = list(run.tokens), self._cache
        run.extend([])
        self._take_back()

    def step(self) -> list[Drawn]:
        """The next token, or several."""
        source = self._source()
        guess = source.draft(self.run.left - 1) if source is not None and self._ahead is None else []
        draft = self.run.permitted(guess)
        tokens = self._check(draft) if draft else [self._next(look_ahead=source is None and self._steps > 0)]
        drawn = self._until_end(tokens)
        new = [each.token for each in drawn]
        self.run.extend(new)
        if draft:
            self._take_back()
        for each in self._sources:
            each.learn(new, guess if each is source else [])
        self._tally.drafted += len(draft)
        self._tally.accepted += common_length(draft, new)
        self._steps += 1
        if self._steps % STEPS_BETWEEN_CLEARING == 0:
            mx.clear_cache()
        return drawn

    def leave(self) -> None:
        """All but the last token of `run` has been read then."""
        self._take_back()

    def _source(self) -> "_Source | None":
        """Who guesses next. Nobody does where one token is left: it takes one step in any case."""
        return next((source for source in self._sources if source.is_ready), None) if self.run.left > 1 else None

    def _check(self, draft: list[int]) -> list[int]:
        drawn = self._draw(mx.array([*self.run.tokens[self.run.read :], *draft]), rows=1 + len(draft))
        tokens: Any = drawn.tolist()
        return list(tokens[: common_length(draft, tokens) + 1])

    def _next(self, *, look_ahead: bool) -> int:
        token = self._draw(mx.array(self.run.tokens[self.run.read :])) if self._ahead is None else self._ahead
        self._ahead = None
        if look_ahead and self.run.left > 1:
            self._ahead = self._draw(token)
            start: Any = mx.async_eval
            start(self._ahead)
        value: Any = token.item()
        return int(value)

    def _draw(self, inputs: mx.array, *, rows: int = 1) -> mx.array:
        """Reads `[length]` tokens, and draws one behind each of the last `rows`, as the batch draws."""
        logits = self._model(inputs[None], cache=self._cache)[0, -rows:]
        self.run.read += inputs.size
        if self.run.constraint is not None:
            logits = self.run.constraint.look_ahead(inputs[-rows:], logits, read=self.run.read)
        return greedy(logits - mx.logsumexp(logits, axis=-1, keepdims=True))

    def _until_end(self, tokens: list[int]) -> list[Drawn]:
        drawn = []
        for left, token in zip(range(self.run.left, 0, -1), tokens, strict=False):
            end: EndReason | None = "stop" if token in self._end_tokens else "length" if left == 1 else None
            drawn.append(Drawn(self.run, token, end))
            if end is not None:
                break
        return drawn

    def _take_back(self) -> None:
        """What has been read of guesses that were wrong, and what was drawn ahead."""
        self._ahead = None
        last = len(self.run.tokens) - 1
        if self.run.read > last:
            trim_prompt_cache(self._cache, self.run.read - last)
            self.run.read = last


class _Source:
    """A drafter at its pace. One that fails guesses no more: that costs speed, and no answer."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter: Drafter | None = drafter
        self._pace = Pace()

    @property
    def is_ready(self) -> bool:
        return self._drafter is not None and self._pace.length > 0 and self._drafter.can_draft()

    def draft(self, at_most: int) -> list[int]:
        if self._drafter is None:
            return []
        try:
            return self._drafter.draft(min(at_most, self._pace.length))
        except Exception:
            log.exception("Nothing more of this answer is guessed")
            self._drafter = None
            return []

    def learn(self, tokens: list[int], draft: list[int]) -> None:
        if draft:
            self._pace.learn(len(draft), common_length(draft, tokens))
        else:
            self._pace.pass_over(len(tokens))
        if self._drafter is not None:
            self._drafter.follow(tokens)
