"""Encodes a stream of `chat.completion.chunk` objects that ends with `[DONE]`."""

import msgspec
from msgspec import UNSET, UnsetType

from service.dialects import sse
from service.dialects.base import Reply
from service.dialects.openai_chat.answer import (
    WireFinishReason,
    WireLogprobs,
    WireUsage,
    response_id,
    wire_finish_reason,
    wire_logprobs,
    wire_usage,
)
from service.dialects.openai_chat.request import FUNCTIONS_STYLE
from service.dialects.openai_dialect import DONE, ChunkStream, system_fingerprint
from service.events import (
    ChoiceEvent,
    ChoiceFinished,
    Done,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

_ENCODER = msgspec.json.Encoder()


class FunctionDelta(msgspec.Struct):
    arguments: str
    name: str | UnsetType = UNSET


class ToolCallChunk(msgspec.Struct):
    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class Delta(msgspec.Struct, kw_only=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallChunk] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    logprobs: WireLogprobs | None = None
    finish_reason: WireFinishReason | None = None


class Chunk(msgspec.Struct, kw_only=True):
    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChunkChoice]
    usage: WireUsage | UnsetType | None


class ChatStream(ChunkStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._id = response_id(reply)
        self._fingerprint = system_fingerprint(reply)
        self._calls: dict[int, int] = {}  # how many calls each choice has started; an absent choice has sent nothing

    def start(self) -> bytes:
        return self._introduce(0)

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Done):
            usage = self._frame([], wire_usage(event.usage)) if self._reply.include_usage else b""
            return usage + DONE
        introduction = b"" if event.choice in self._calls else self._introduce(event.choice)
        choice = self._choice(event)
        return introduction + self._frame([choice]) if choice else introduction

    def _choice(self, event: ChoiceEvent) -> ChunkChoice | None:
        """Returns the event's addition to its choice. An abandoned call cannot be taken back and keeps its index."""
        match event:
            case TextDelta(index, text, logprobs) if text or logprobs:
                return ChunkChoice(index, Delta(content=text), wire_logprobs(logprobs) if logprobs else None)
            case ReasoningDelta(index, text) if text:
                return ChunkChoice(index, Delta(reasoning_content=text))
            case ToolCallStarted(index, call_id, name):
                self._calls[index] += 1
                return ChunkChoice(index, self._call(index, FunctionDelta("", name), call_id))
            case ToolCallDelta(index, arguments) if arguments:
                return ChunkChoice(index, self._call(index, FunctionDelta(arguments)))
            case ChoiceFinished(index, reason):
                return ChunkChoice(index, Delta(), finish_reason=wire_finish_reason(reason, self._reply.dialect_state))
        return None

    def _call(self, choice: int, function: FunctionDelta, call_id: str | UnsetType = UNSET) -> Delta:
        # The first chunk of a call has its id.
        index = self._calls[choice] - 1
        if self._reply.dialect_state == FUNCTIONS_STYLE:
            if index == 0:
                return Delta(function_call=function)
            index -= 1
        kind = UNSET if call_id is UNSET else "function"
        return Delta(tool_calls=[ToolCallChunk(index, function, call_id, kind)])

    def _introduce(self, choice: int) -> bytes:
        self._calls[choice] = 0
        return self._frame([ChunkChoice(choice, Delta(role="assistant", content=""))])

    def _frame(self, choices: list[ChunkChoice], usage: WireUsage | None = None) -> bytes:
        # With `include_usage` every chunk has the field; it is null in all but the last.
        return sse.frame(
            _ENCODER.encode(
                Chunk(
                    id=self._id,
                    created=self._reply.created,
                    model=self._reply.model,
                    system_fingerprint=self._fingerprint,
                    choices=choices,
                    usage=usage if self._reply.include_usage else UNSET,
                )
            )
        )
