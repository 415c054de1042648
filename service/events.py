"""The events of a generation. `CompletionBuilder` folds them into a `Completion`. `events_of` returns events that fold
into the same `Completion`."""

from collections.abc import Iterator

import msgspec

from service.generation import (
    Choice,
    Completion,
    FinishReason,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
    WebSearch,
)


class TextDelta(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """`logprobs` belong to the tokens finished since the last delta, and may come with
    empty `text` while a token's text is incomplete. None: the request has no logprobs. Otherwise each choice has at
    least one delta with logprobs."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None


class ReasoningDelta(msgspec.Struct, frozen=True, array_like=True, tag="reasoning"):
    choice: int
    text: str


class ToolCallStarted(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """Its `ToolCallDelta`s come before anything else of this choice."""

    choice: int
    id: str
    name: str


class ToolCallDelta(msgspec.Struct, frozen=True, array_like=True, tag="arguments"):
    choice: int
    arguments: str


class ToolCallAbandoned(msgspec.Struct, frozen=True, array_like=True, tag="abandoned"):
    """The last call is invalid: the model broke it off, or wrote invalid JSON. It is no part of the `Completion`,
    although its deltas were sent. The model's text for it follows as `TextDelta`."""

    choice: int


class WebSearched(msgspec.Struct, frozen=True, array_like=True, tag="searched"):
    """The server ran a search. No executor sends it."""

    choice: int
    search: WebSearch


class ChoiceFinished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """`tokens` is the length of the choice, None if it is unknown. It is no part of the `Completion`."""

    choice: int
    reason: FinishReason
    stop_sequence: str | None = None
    tokens: int | None = None


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """Every choice has finished."""

    usage: Usage


ChoiceEvent = (
    TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | ToolCallAbandoned | WebSearched | ChoiceFinished
)
Event = ChoiceEvent | Done


def events_of(completion: Completion) -> Iterator[Event]:
    for index, choice in enumerate(completion.choices):
        logprobs = choice.logprobs
        if logprobs is not None and not any(isinstance(part, Text) for part in choice.parts):
            yield TextDelta(index, "", logprobs)
        for part in choice.parts:
            match part:
                case Text(text):
                    yield TextDelta(index, text, logprobs)
                    logprobs = None if logprobs is None else ()
                case Reasoning(text):
                    yield ReasoningDelta(index, text)
                case WebSearch():
                    yield WebSearched(index, part)
                case ToolCall(call_id, name, arguments):
                    yield ToolCallStarted(index, call_id, name)
                    yield ToolCallDelta(index, arguments)
        yield ChoiceFinished(index, choice.finish_reason, choice.stop_sequence)
    yield Done(completion.usage)


class CompletionBuilder:
    def __init__(self) -> None:
        self._choices: dict[int, _ChoiceBuilder] = {}
        self._usage: Usage | None = None

    def feed(self, event: Event) -> None:
        if isinstance(event, Done):
            self._usage = event.usage
            return
        choice = self._choices.get(event.choice)
        if choice is None:
            choice = self._choices[event.choice] = _ChoiceBuilder()
        choice.feed(event)

    def build(self) -> Completion:
        """Raises ValueError before `Done`."""
        if self._usage is None:
            raise ValueError("the generation has not finished: no Done event was fed")
        return Completion(
            choices=tuple(self._choices[i].build() for i in sorted(self._choices)),
            usage=self._usage,
        )


class _ChoiceBuilder:
    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._open: list[str] = []
        self._opened: type[Text] | type[Reasoning] | ToolCallStarted | None = None
        self._logprobs: list[TokenLogprob] | None = None
        self._finish: ChoiceFinished | None = None

    def feed(self, event: ChoiceEvent) -> None:
        match event:
            case TextDelta(_, text, logprobs):
                if logprobs is not None:
                    self._logprobs = self._logprobs or []
                    self._logprobs.extend(logprobs)
                if text:
                    self._append(Text, text)
            case ReasoningDelta(_, text):
                if text:
                    self._append(Reasoning, text)
            case ToolCallStarted():
                self._close()
                self._opened = event
            case ToolCallDelta(_, arguments):
                self._open.append(arguments)
            case ToolCallAbandoned():
                self._open.clear()
                self._opened = None
            case WebSearched(_, search):
                self._close()
                self._parts.append(search)
            case ChoiceFinished():
                self._close()
                self._finish = event

    def build(self) -> Choice:
        if self._finish is None:
            raise ValueError("a choice has not finished: no ChoiceFinished event was fed")
        return Choice(
            parts=tuple(self._parts),
            finish_reason=self._finish.reason,
            stop_sequence=self._finish.stop_sequence,
            logprobs=None if self._logprobs is None else tuple(self._logprobs),
        )

    def _append(self, kind: type[Text] | type[Reasoning], text: str) -> None:
        if self._opened is not kind:
            self._close()
            self._opened = kind
        self._open.append(text)

    def _close(self) -> None:
        text = "".join(self._open)
        self._open.clear()
        opened, self._opened = self._opened, None
        if isinstance(opened, ToolCallStarted):
            self._parts.append(ToolCall(opened.id, opened.name, text))
        elif opened is not None:
            self._parts.append(opened(text))
