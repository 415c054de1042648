"""Bytes to messages and back: whole, cut anywhere, and wrong in every way."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    BadRequest,
    ContextLengthExceeded,
    EngineFailed,
    GenerationTimeout,
    Overloaded,
    ServiceError,
)
from service.events import (
    ChoiceFinished,
    Done,
    ReasoningDelta,
    TextDelta,
    ToolCallAbandoned,
    ToolCallDelta,
    ToolCallStarted,
)
from service.executor.base import ExecutorStatus
from service.executor.process.call_messages import (
    AbortCall,
    CallAccepted,
    CallEvents,
    CallFailed,
    CallFound,
    CloseEngine,
    CountCall,
    StartEngine,
    StatusReport,
    SubmitCall,
    ToEngine,
    ToServer,
    failed,
    to_error,
)
from service.executor.process.frames import HEADER, MAX_FRAME_BYTES, BadFrame, FrameReader, FrameTooLarge, encode_frame
from service.generation import (
    GenerationRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    TopLogprob,
    Usage,
)
from service.settings import Settings
from service.tallies import Tuning
from tests.executor.process.engines import spec

CALL = ToolCall("call_1", "look", '{"at": "it"}')
REQUEST = GenerationRequest(
    messages=(
        Message(role="system", content="Be brief."),
        Message(role="assistant", reasoning="hm", tool_calls=(CALL,)),
        Message(role="tool", content="\x00é\U0001f600", tool_call_id="call_1", is_error=True),
    ),
    tools=(Tool(name="look", parameters={"type": "object", "properties": {"at": {"maximum": 1.5}}}),),
    tool_choice=ToolChoice("required", "look"),
    response_format=ResponseFormat(kind="json_schema", schema={"enum": [1, None, True]}),
    sampling=SamplingParams(temperature=0.3, seed=2**63, logit_bias=((5, -1.5),)),
    stop=("x",),
    template_arguments={"a": [1, {"b": "c"}]},
)
LOGPROB = TokenLogprob("a", b"\xff", -0.5, (TopLogprob("a", b"\xff", -0.5),))
EVENTS = [
    TextDelta(0, "text", (LOGPROB,)),
    TextDelta(1, ""),
    ReasoningDelta(0, "hm"),
    ToolCallStarted(0, "call_2", "look"),
    ToolCallDelta(0, "{}"),
    ToolCallAbandoned(0),
    ChoiceFinished(0, "stop", "x", 2),
    Done(Usage(prompt_tokens=3, completion_tokens=2)),
]
TO_ENGINE: list[ToEngine] = [
    StartEngine(spec("scripted", Settings(home=Path("/a/b"), warm=("c",)), at="idle")),
    SubmitCall(1, REQUEST),
    CountCall(2, REQUEST),
    AbortCall(1),
    CloseEngine(),
]
TO_SERVER: list[ToServer] = [
    StatusReport(
        ExecutorStatus(
            state="healthy", running=2, memory_bytes=2**40, tuning=Tuning(chunk_tokens=64, guesses={"PromptLookup": 4})
        )
    ),
    CallAccepted(1, 7),
    CallEvents(1, EVENTS),
    CallFound(2, 9),
    failed(3, ContextLengthExceeded(9, 5)),
]


def read(kind: Any, data: bytes, sizes: tuple[int, ...] = ()) -> list[Any]:
    """What a reader gives for `data` in pieces of these sizes, and the rest."""
    reader: FrameReader[Any] = FrameReader(kind)
    messages, position = [], 0
    for size in (*sizes, len(data)):
        messages += reader.feed(data[position : position + size])
        position += size
    return messages


@pytest.mark.parametrize(("kind", "messages"), [(list[ToEngine], TO_ENGINE), (list[ToServer], TO_SERVER)])
def test_every_message_comes_back_as_it_was(kind: Any, messages: list[Any]) -> None:
    assert read(kind, encode_frame(messages)) == messages
    assert read(kind, b"".join(encode_frame([message]) for message in messages)) == messages


@given(st.lists(st.integers(min_value=0, max_value=300), max_size=30))
def test_frames_may_be_cut_anywhere(sizes: list[int]) -> None:
    data = encode_frame(TO_SERVER[:2]) + encode_frame(TO_SERVER[2:])
    assert read(list[ToServer], data, tuple(sizes)) == TO_SERVER


def test_a_frame_may_come_byte_by_byte() -> None:
    data = encode_frame(TO_ENGINE)
    assert read(list[ToEngine], data, (1,) * len(data)) == TO_ENGINE


def test_integers_of_any_length_pass() -> None:
    """A JSON Schema may have them, and msgpack does not."""
    request = GenerationRequest(
        messages=(Message(role="user", content="[é"),),
        tools=(Tool(name="a", parameters={"maximum": 10**400, "minimum": -(2**64)}),),
    )
    assert read(list[ToEngine], encode_frame([SubmitCall(1, request)])) == [SubmitCall(1, request)]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91", b"\x91\x91\x01", b"[", b'[["unheard", 1]]', b"\x80", b"\x91" * 100_000]
)
def test_what_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrame):
        read(list[ToServer], HEADER.pack(len(body)) + body)


@given(st.binary(min_size=4, max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for kind in (list[ToServer], list[ToEngine]):
        try:
            read(kind, HEADER.pack(len(data)) + data)
        except BadFrame:
            continue


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept() -> None:
    reader: FrameReader[ToServer] = FrameReader(list[ToServer])
    with pytest.raises(BadFrame, match="at most"):
        reader.feed(HEADER.pack(MAX_FRAME_BYTES + 1))


def test_what_does_not_fit_a_frame_is_not_sent() -> None:
    text = "x" * (MAX_FRAME_BYTES // 4)
    request = GenerationRequest(messages=tuple(Message(role="user", content=text) for _ in range(4)))
    with pytest.raises(FrameTooLarge):
        encode_frame([SubmitCall(1, request)])


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("wrong", param="messages[0]"),
        ContextLengthExceeded(9, 5, estimated=True),
        Overloaded("full", retry_after=5.0),
        EngineFailed("it failed"),
        GenerationTimeout("too long"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_as_they_were(error: ServiceError) -> None:
    (message,) = read(list[ToServer], encode_frame([failed(1, error)]))
    again = to_error(message)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_an_unknown_error_is_an_internal_one() -> None:
    error = to_error(CallFailed(1, "Unheard", "of", {}))
    assert (error.status, error.message, error.retry_after) == (500, "of", None)
