"""The message opens, its blocks follow one another, the message closes."""

import msgspec

from service.dialects import sse
from service.dialects.anthropic_messages.answer import (
    NO_INPUT,
    SIGNATURE,
    StopReason,
    WireBlock,
    WireErrorBody,
    WireMessage,
    WireText,
    WireThinking,
    WireToolUse,
    WireUsage,
    is_answered_search,
    message_id,
    search_call,
    search_results,
    stop_reason,
    wire_error,
    wire_usage,
)
from service.dialects.base import Reply
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
from service.generation import Usage


class WireDelta(msgspec.Struct, tag_field="type"): ...


class WireTextDelta(WireDelta, tag="text_delta"):
    text: str


class WireThinkingDelta(WireDelta, tag="thinking_delta"):
    thinking: str


class WireSignatureDelta(WireDelta, tag="signature_delta"):
    signature: str


class WireInputDelta(WireDelta, tag="input_json_delta"):
    partial_json: str


class WireEvent(msgspec.Struct, tag_field="type"): ...


class MessageStart(WireEvent, tag="message_start"):
    message: WireMessage


class ContentBlockStart(WireEvent, tag="content_block_start"):
    index: int
    content_block: WireBlock


class ContentBlockDelta(WireEvent, tag="content_block_delta"):
    index: int
    delta: WireDelta


class ContentBlockStop(WireEvent, tag="content_block_stop"):
    index: int


class Ending(msgspec.Struct):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(WireEvent, tag="message_delta"):
    delta: Ending
    usage: WireUsage


class MessageStop(WireEvent, tag="message_stop"): ...


class Ping(WireEvent, tag="ping"): ...


_ENCODER = msgspec.json.Encoder()
_NO_TEXT = WireText("")
_NO_THOUGHT = WireThinking("", "")


class MessageStream:
    """The `StreamEncoder` of one response. Blocks are numbered from 0; one is open at a time."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._index = 0
        self._block: WireBlock | None = None
        self._ending = Ending("end_turn", None)
        self._searches = 0

    def start(self) -> bytes:
        # The whole prompt counts as new: its cached share is known only at the end.
        message = WireMessage(
            id=message_id(self._reply),
            model=self._reply.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=wire_usage(Usage(prompt_tokens=self._reply.prompt_tokens, completion_tokens=0)),
        )
        return _frame(MessageStart(message))

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Done):
            usage = wire_usage(event.usage, self._searches)
            return self._close() + _frame(MessageDelta(self._ending, usage)) + _frame(MessageStop())
        if event.choice != 0:
            return b""
        match event:
            case TextDelta(_, text) if text:
                return self._enter(_NO_TEXT) + self._delta(WireTextDelta(text))
            case ReasoningDelta(_, text) if text:
                return self._enter(_NO_THOUGHT) + self._delta(WireThinkingDelta(text))
            case ToolCallStarted(_, call_id, name):
                return self._enter(WireToolUse(call_id, name, NO_INPUT))
            case ToolCallDelta(_, arguments) if arguments:
                return self._delta(WireInputDelta(arguments))
            case ToolCallAbandoned():
                return self._close()
            case WebSearched(_, search):
                self._searches += is_answered_search(search)
                call = self._enter(search_call(search, NO_INPUT)) + self._delta(WireInputDelta(search.arguments))
                return call + self._enter(search_results(search)) + self._close()
            case ChoiceFinished(_, reason, stop_sequence):
                self._ending = Ending(stop_reason(reason, stop_sequence), stop_sequence)
                return self._close()
        return b""

    def keep_alive(self) -> bytes:
        return _frame(Ping())

    def fail(self, error: ServiceError) -> bytes:
        return _frame(WireErrorBody(wire_error(error))) + _frame(MessageStop())

    def _enter(self, block: WireBlock) -> bytes:
        """Opens a block, unless the event continues the open one. Every call is a block of its own."""
        if block is self._block:
            return b""
        closing = self._close()
        self._block = block
        return closing + _frame(ContentBlockStart(self._index, block))

    def _close(self) -> bytes:
        if self._block is None:
            return b""
        signature = self._delta(WireSignatureDelta(SIGNATURE)) if self._block is _NO_THOUGHT else b""
        closing = signature + _frame(ContentBlockStop(self._index))
        self._block = None
        self._index += 1
        return closing

    def _delta(self, delta: WireDelta) -> bytes:
        return _frame(ContentBlockDelta(self._index, delta))


def _frame(event: WireEvent | WireErrorBody) -> bytes:
    return sse.named_frame(str(event.__struct_config__.tag), _ENCODER.encode(event))
