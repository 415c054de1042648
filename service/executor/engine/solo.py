import logging
import time
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, make_prompt_cache

from service.executor.engine.run import Drawn, Run
from service.executor.engine.undo import Undo, take_back
from service.executor.loading.cache_kinds import leaves
from service.executor.prefix.tree import common_length
from service.executor.scheduling.protocols import EndReason
from service.executor.speculation.drafter import MOST_DRAFTED, Drafter, Pace
from service.executor.speculation.experience import Experience

log = logging.getLogger(__name__)

# Growing KV state leaves freed buffers behind. mlx-lm's batch clears them as often.
STEPS_BETWEEN_CLEARING = 512

# The first step reads the end of the prompt, and the prompt's state is kept before the second.
STEPS_NOT_TIMED = 2


class Solo:
    """Decodes a `run` alone. It draws a token at each place of a draft and keeps those up to the first that differs
    from the draft, so `drafters` never change the output or its distribution."""

    def __init__(
        self,
        model: Any,
        run: Run,
        drafters: list[Drafter],
        *,
        end_tokens: set[int],
        experience: Experience,
    ) -> None:
        self.run = run
        self._model = model
        self._cache: list[Any] = run.cache or make_prompt_cache(model)
        # Without recurrent layers, the state is cut behind the last right guess. With them, it goes back to before the
        # guess, and the next step reads the right tokens again.
        self._recurrent = any(isinstance(leaf, ArraysCache) for leaf in leaves(self._cache))
        self._undo: Undo | None = None
        self._read_at_once = 1  # tokens of the last call of the model; a batch reads one
        self._drafters = [_PacedDrafter(drafter, experience) for drafter in drafters]
        self._end_tokens = end_tokens
        self._tally = experience.tally
        self._times = experience.times
        self._stepped_at = 0.0
        self._last_guess: tuple[str, int, float] | None = None
        self._ahead: mx.array | None = None  # the next token, being computed
        self._steps = 0
        self._processors = [each for each in run.processors if each is not run.constraint]
        self._history = mx.array([], dtype=mx.int32)  # the first tokens of `run`, for `_processors`
        run.tokens, run.cache = list(run.tokens), self._cache
        run.extend([])
        self._take_back()

    def step(self) -> list[Drawn]:
        drafter, was_ahead = self._ready_drafter(), self._ahead is not None
        may_guess = not was_ahead and not (self._recurrent and self._unread > 1)
        guess = drafter.draft() if drafter is not None and may_guess else []
        draft = self.run.permitted(guess)
        # Without a drafter the next token is computed while this one is delivered. The first token is the exception: on
        # a CPU, MLX barely starts new work before queued work finishes, so it would arrive with the second.
        tokens = self._check(draft) if draft else [self._next(look_ahead=drafter is None and self._steps > 0)]
        drawn = self._until_end(tokens)
        new = [each.token for each in drawn]
        self.run.extend(new)
        if draft:
            self._take_back()
        for each in self._drafters:
            each.learn(new, guess if each is drafter else [])
        self._tally.drafted += len(draft)
        self._tally.accepted += common_length(draft, new)
        self._learn_time(drafter, len(draft), was_ahead=was_ahead)
        self._steps += 1
        if self._steps % STEPS_BETWEEN_CLEARING == 0:
            mx.clear_cache()
        return drawn

    def leave(self) -> None:
        """May follow any step. Leaves `run` with all but its last token read."""
        self._take_back()
        if self._recurrent and self._unread > 1:
            self._model(mx.array([self.run.tokens[self.run.read : -1]]), cache=self._cache)
            self.run.read = len(self.run.tokens) - 1

    def _learn_time(self, drafter: "_PacedDrafter | None", guessed: int, *, was_ahead: bool) -> None:
        # From step to step, so that what the scheduler does in between counts as it delays the answer.
        before, self._stepped_at = self._stepped_at, time.perf_counter()
        if self._steps < STEPS_NOT_TIMED:
            return
        seconds = self._stepped_at - before
        if drafter is not None and guessed > 0:
            self._last_guess = (drafter.kind, guessed, seconds)
        elif self._last_guess is not None:  # this step has read the right tokens again
            kind, guessed, guessing = self._last_guess
            self._last_guess = (kind, guessed, guessing + self._times.excess(seconds))
        if self._last_guess is not None and self._unread <= 1:
            self._times.learn_guess(*self._last_guess)
            self._last_guess = None
        elif drafter is None and was_ahead:
            self._times.learn_plain(seconds)

    def _ready_drafter(self) -> "_PacedDrafter | None":
        most = self.run.left - 1  # the last token takes one step in any case
        return next((drafter for drafter in self._drafters if drafter.is_ready(most)), None)

    @property
    def _unread(self) -> int:
        return len(self.run.tokens) - self.run.read

    def _check(self, draft: list[int]) -> list[int]:
        self._remember()
        drawn = self._draw(mx.array([*self.run.tokens[self.run.read :], *draft]), rows=1 + len(draft))
        tokens: Any = drawn.tolist()
        return list(tokens[: common_length(draft, tokens) + 1])

    def _next(self, *, look_ahead: bool) -> int:
        token = self._draw(mx.array(self.run.tokens[self.run.read :])) if self._ahead is None else self._ahead
        self._ahead = None
        if look_ahead and self.run.left > 1:
            self._remember()
            self._ahead = self._draw(token)
            start: Any = mx.async_eval
            start(self._ahead)
        value: Any = token.item()
        return int(value)

    def _draw(self, inputs: mx.array, *, rows: int = 1) -> mx.array:
        """Reads `[length]` tokens and draws one after each of the last `rows`."""
        logits = self._model(inputs[None], cache=self._cache)[0, -rows:]
        self.run.read += inputs.size
        self._read_at_once = inputs.size
        if self._processors:
            logits = self._processed(inputs, logits)
        if self.run.constraint is not None:
            logits = self.run.constraint.look_ahead(inputs[-rows:], logits, read=self.run.read)
        return self.run.draw(logits, self.run.read - rows + 1)

    def _processed(self, inputs: mx.array, logits: mx.array) -> mx.array:
        # Each row follows one more of the inputs, which may be guesses.
        before = self.run.read - inputs.size
        if before > self._history.size:
            self._history = mx.concatenate([self._history, mx.array(self.run.tokens[self._history.size : before])])
        tokens = mx.concatenate([self._history[:before], inputs])
        rows = []
        for number in range(len(logits)):
            row = logits[number : number + 1]
            for process in self._processors:
                row = process(tokens[: tokens.size - len(logits) + number + 1], row)
            rows.append(row)
        return mx.concatenate(rows)

    def _until_end(self, tokens: list[int]) -> list[Drawn]:
        drawn = []
        for left, token in zip(range(self.run.left, 0, -1), tokens, strict=False):
            end: EndReason | None = "stop" if token in self._end_tokens else "length" if left == 1 else None
            drawn.append(Drawn(self.run, token, end))
            if end is not None:
                break
        return drawn

    def _take_back(self) -> None:
        self._ahead = None
        last = len(self.run.tokens) - 1
        if self.run.read <= last:
            return
        if self._undo is not None:
            self._undo.apply(self.run.read)
            self.run.read = self._undo.read
        else:
            take_back(self._cache, self.run.read - last, of=self._read_at_once)
            self.run.read = last

    def _remember(self) -> None:
        if self._recurrent:
            self._undo = Undo(self._cache, self.run.read)


class _PacedDrafter:
    def __init__(self, drafter: Drafter, experience: Experience) -> None:
        self.kind = type(drafter).__name__
        self._drafter: Drafter | None = drafter
        self._experience = experience
        self._pace = Pace()
        self._basis = 0
        self._length = 0

    def is_ready(self, most: int) -> bool:
        self._length = 0
        if most > 0 and self._drafter is not None and self._drafter.can_draft():
            self._basis = self._drafter.basis()
            untimed = min(most, self._pace.length)
            self._length = self._experience.length(self.kind, self._basis, min(most, MOST_DRAFTED), untimed=untimed)
        return self._length > 0

    def draft(self) -> list[int]:
        if self._drafter is None:
            return []
        try:
            return self._drafter.draft(self._length)
        except Exception:
            log.exception("A drafter failed; this answer continues without it")
            self._drafter = None
            return []

    def learn(self, tokens: list[int], draft: list[int]) -> None:
        judged = draft[: len(tokens)]  # the answer may have ended in it
        if judged:
            right = common_length(judged, tokens)
            self._pace.learn(len(judged), right)
            self._experience.learn(self.kind, self._basis, len(judged), right)
        if self._drafter is not None:
            self._drafter.follow(tokens)
