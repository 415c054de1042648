import codecs
from collections.abc import Callable

from service.executor.output.reasoning import ReasoningSplitter
from service.executor.output.vocabulary import Vocabulary
from service.executor.scheduling.messages import ReasoningForm, Sequence
from service.executor.scheduling.protocols import EndReason
from service.tallies import CallTally


class ReasoningGuard:
    """Decides when the server ends the reasoning of an answer: when `budget` tokens are used up, without cutting a
    character, and once if the answer would be nothing but reasoning. `inside`: the prompt opened the reasoning."""

    def __init__(
        self,
        form: ReasoningForm,
        token_bytes: Callable[[int], bytes],
        tally: CallTally,
        *,
        inside: bool,
        budget: int | None,
        retries: bool,
    ) -> None:
        self._form = form
        self._token_bytes = token_bytes
        self._tally = tally
        self._budget = budget
        self._retries = retries
        self._splitter = ReasoningSplitter(form, inside=inside)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._used = 0
        self._answered = False

    def feed(self, token: int) -> None:
        if self._answered:
            return
        was_inside = self._splitter.inside
        _, answer = self._splitter.feed(self._decoder.decode(self._token_bytes(token)))
        self._used += was_inside and self._splitter.inside
        self._answered = bool(answer.strip())

    def interjection(self, end: EndReason | None, room: int) -> tuple[int, ...]:
        inside = self._splitter.inside
        if self._answered or not (inside or self._used):
            return ()
        if end == "stop" and self._retries:
            tokens = (*self._form.closing, *self._form.answer) if inside else self._form.answer
            if len(tokens) < room:
                self._retries = False
                self._tally.unanswered += 1
                return tokens
        if end is None and inside and self._is_over_budget and len(self._form.closing) < room:
            self._tally.over_budget += 1
            return self._form.closing
        return ()

    @property
    def _is_over_budget(self) -> bool:
        unfinished, _ = self._decoder.getstate()
        return self._budget is not None and self._used >= self._budget and not unfinished


def open_guard(sequence: Sequence, vocabulary: Vocabulary, tally: CallTally) -> ReasoningGuard | None:
    prompt, request = sequence.prompt, sequence.request
    if prompt.reasoning is None:
        return None
    return ReasoningGuard(
        prompt.reasoning,
        vocabulary.token_bytes,
        tally,
        inside=prompt.in_reasoning,
        budget=request.thinking_budget,
        retries=request.answer_after_reasoning,
    )
