"""The response opens, its items follow one another, the response closes."""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from service.dialects import sse
from service.dialects.base import Reply
from service.dialects.openai_logprobs import LogprobOfToken, logprobs_of_tokens
from service.dialects.openai_responses.answer import (
    AnyCall,
    AnyItem,
    CustomCall,
    FunctionCall,
    OpenItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningText,
    Response,
    Status,
    SummaryText,
    asked_of,
    finished_call,
    finished_reasoning,
    item_id,
    opened_call,
    response,
    web_search_call,
)
from service.errors import ServiceError
from service.events import (
    ChoiceFinished,
    Done,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallAbandoned,
    ToolCallDelta,
    ToolCallStarted,
    WebSearched,
)
from service.generation import TokenLogprob, Usage, WebSearch

_ENCODER = msgspec.json.Encoder()


class StreamEvent(msgspec.Struct, kw_only=True):
    type: str
    sequence_number: int
    response: Response | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    item: AnyItem | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    summary_index: int | UnsetType = UNSET
    part: OutputText | SummaryText | ReasoningText | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    input: str | UnsetType = UNSET
    logprobs: list[LogprobOfToken] | UnsetType = UNSET


class ResponseStream:
    """One item is open at a time. `keep` receives the JSON of the finished response before the client does."""

    def __init__(self, reply: Reply, keep: Callable[[bytes], None]) -> None:
        self._reply = reply
        self._asked = asked_of(reply)
        self._keep = keep
        self._sequence = 0
        self._index = 0
        self._items: list[AnyItem] = []
        self._open: OpenItem | None = None
        self._text: list[str] = []
        self._logprobs: list[LogprobOfToken] = []
        self._status: Status = "completed"

    def start(self) -> bytes:
        return self._lifecycle("response.created", "in_progress") + self.keep_alive()

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Done):
            return self._finish(event.usage)
        if event.choice != 0:
            return b""
        match event:
            case TextDelta(_, text, logprobs) if text or logprobs:
                return self._message(text, logprobs or ())
            case ReasoningDelta(_, text) if text:
                return self._reasoning(text)
            case ToolCallStarted(_, call_id, name):
                closing = self._close()
                return closing + self._enter(opened_call(call_id, name, self._index, self._reply))
            case ToolCallDelta(_, arguments) if arguments:
                return self._arguments(arguments)
            case ToolCallAbandoned():
                return self._abandon()
            case WebSearched(_, search):
                return self._searched(search)
            case ChoiceFinished(_, reason):
                self._status = "incomplete" if reason == "length" else "completed"
                return self._close(self._status)
        return b""

    def keep_alive(self) -> bytes:
        # Codex counts only events: a comment would not keep its connection open.
        return self._lifecycle("response.in_progress", "in_progress")

    def fail(self, error: ServiceError) -> bytes:
        return self._lifecycle("response.failed", "failed", error=error)

    def _finish(self, usage: Usage) -> bytes:
        closing = self._close(self._status)
        finished = response(self._reply, self._items, self._status, usage)
        self._keep(_ENCODER.encode(finished))
        return closing + self._frame(f"response.{self._status}", response=finished)

    def _lifecycle(self, kind: str, status: Status, *, error: ServiceError | None = None) -> bytes:
        return self._frame(kind, response=response(self._reply, self._items, status, error=error))

    def _message(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        frames = b""
        if not isinstance(self._open, OutputMessage):
            frames = self._close() + self._enter(OutputMessage(id=item_id("msg", self._index, self._reply)))
            frames += self._of_item("response.content_part.added", content_index=0, part=OutputText(text=""))
        self._text.append(text)
        tokens = logprobs_of_tokens(logprobs)
        self._logprobs += tokens
        return frames + self._of_item("response.output_text.delta", content_index=0, delta=text, logprobs=tokens)

    def _reasoning(self, text: str) -> bytes:
        frames = b""
        summaries = self._asked.has_summaries
        if not isinstance(self._open, OutputReasoning):
            frames = self._close() + self._enter(OutputReasoning(id=item_id("rs", self._index, self._reply)))
            if summaries:
                frames += self._of_item("response.reasoning_summary_part.added", summary_index=0, part=SummaryText(""))
            else:
                frames += self._of_item("response.content_part.added", content_index=0, part=ReasoningText(""))
        self._text.append(text)
        if summaries:
            return frames + self._of_item("response.reasoning_summary_text.delta", summary_index=0, delta=text)
        return frames + self._of_item("response.reasoning_text.delta", content_index=0, delta=text)

    def _arguments(self, arguments: str) -> bytes:
        # A custom tool's input is in a JSON string, and is sent once it is whole.
        self._text.append(arguments)
        if isinstance(self._open, FunctionCall):
            return self._of_item("response.function_call_arguments.delta", delta=arguments)
        return b""

    def _searched(self, search: WebSearch) -> bytes:
        """The search has ended before its first event: the model's call itself is not shown."""
        frames = self._close()
        item = web_search_call(search, item_id("ws", self._index, self._reply))
        begun = msgspec.structs.replace(item, status="in_progress", results=[])
        frames += self._frame("response.output_item.added", output_index=self._index, item=begun)
        for stage in ("in_progress", "searching", "completed"):
            frames += self._frame(f"response.web_search_call.{stage}", output_index=self._index, item_id=item.id)
        frames += self._frame("response.output_item.done", output_index=self._index, item=item)
        self._items.append(item)
        self._index += 1
        return frames

    def _enter(self, item: OpenItem) -> bytes:
        self._open = item
        return self._frame("response.output_item.added", output_index=self._index, item=item)

    def _abandon(self) -> bytes:
        # The call has no end, so a client that acts on finished items ignores it.
        self._leave()
        return b""

    def _close(self, status: Status = "completed") -> bytes:
        item = self._open
        if item is None:
            return b""
        text = "".join(self._text)
        match item:
            case OutputMessage():
                frames, finished = self._closed_message(item, text)
            case OutputReasoning():
                frames, finished = self._closed_reasoning(item, text)
            case _:
                frames, finished = self._closed_call(item, text)
        finished.status = status
        frames += self._frame("response.output_item.done", output_index=self._index, item=finished)
        self._items.append(finished)
        self._leave()
        return frames

    def _closed_message(self, item: OutputMessage, text: str) -> tuple[bytes, AnyItem]:
        part = OutputText(text=text, logprobs=self._logprobs)
        frames = self._of_item("response.output_text.done", content_index=0, text=text, logprobs=self._logprobs)
        frames += self._of_item("response.content_part.done", content_index=0, part=part)
        return frames, OutputMessage(id=item.id, content=[part])

    def _closed_reasoning(self, item: OutputReasoning, text: str) -> tuple[bytes, AnyItem]:
        if self._asked.has_summaries:
            frames = self._of_item("response.reasoning_summary_text.done", summary_index=0, text=text)
            frames += self._of_item("response.reasoning_summary_part.done", summary_index=0, part=SummaryText(text))
        else:
            frames = self._of_item("response.reasoning_text.done", content_index=0, text=text)
            frames += self._of_item("response.content_part.done", content_index=0, part=ReasoningText(text))
        return frames, finished_reasoning(item.id, text, self._asked)

    def _closed_call(self, item: AnyCall, text: str) -> tuple[bytes, AnyItem]:
        finished = finished_call(item, text)
        match finished:
            case FunctionCall(name=name, arguments=arguments):
                return self._of_item("response.function_call_arguments.done", name=name, arguments=arguments), finished
            case CustomCall(input=given):
                frames = self._of_item("response.custom_tool_call_input.delta", delta=given)
                return frames + self._of_item("response.custom_tool_call_input.done", input=given), finished
        return b"", finished

    def _leave(self) -> None:
        self._open = None
        self._text = []
        self._logprobs = []
        self._index += 1

    def _of_item(self, kind: str, **fields: object) -> bytes:
        assert self._open is not None  # noqa: S101  (only items have such events)
        return self._frame(kind, output_index=self._index, item_id=self._open.id, **fields)

    def _frame(self, kind: str, **fields: object) -> bytes:
        event = StreamEvent(type=kind, sequence_number=self._sequence, **fields)  # type: ignore[arg-type]
        self._sequence += 1
        return sse.named_frame(kind, _ENCODER.encode(event))
