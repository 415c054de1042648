import json
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import Reply
from service.errors import ContextLengthExceeded, EngineFailed, Overloaded
from service.events import (
    ChoiceFinished,
    Done,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallAbandoned,
    ToolCallDelta,
    ToolCallStarted,
    events_of,
)
from service.generation import Choice, Completion, Part, Reasoning, Text, TokenLogprob, ToolCall, Usage

DIALECT = AnthropicMessages()
REPLY = Reply(id="0123abcd", model="claude-x", created=1, prompt_tokens=10)
DONE = Done(Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=4, prefix_stored_tokens=2))
CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

START = (
    '{"type":"message_start","message":{"type":"message","id":"msg_0123abcd","role":"assistant","model":"claude-x",'
    '"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":0,'
    '"cache_read_input_tokens":0,"output_tokens":0}}}'
)
STOP = '{"type":"message_stop"}'


def end(reason: str, stop: str = "null") -> list[str]:
    return [
        f'{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":{stop}}},"usage":{{"input_tokens":4,'
        '"cache_creation_input_tokens":2,"cache_read_input_tokens":4,"output_tokens":3}}',
        STOP,
    ]


def open_block(index: int, block: str) -> str:
    return f'{{"type":"content_block_start","index":{index},"content_block":{block}}}'


def delta(index: int, content: str) -> str:
    return f'{{"type":"content_block_delta","index":{index},"delta":{content}}}'


def close(index: int) -> str:
    return f'{{"type":"content_block_stop","index":{index}}}'


TEXT_BLOCK = '{"type":"text","text":""}'
THINKING_BLOCK = '{"type":"thinking","thinking":"","signature":""}'
SIGNED = '{"type":"signature_delta","signature":"YW55Y2xhdWRl"}'


def text(words: str) -> str:
    return f'{{"type":"text_delta","text":"{words}"}}'


def thought(words: str) -> str:
    return f'{{"type":"thinking_delta","thinking":"{words}"}}'


def arguments(words: str) -> str:
    return json.dumps({"type": "input_json_delta", "partial_json": words}, separators=(",", ":"))


def call_block(call_id: str, name: str) -> str:
    return f'{{"type":"tool_use","id":"{call_id}","name":"{name}","input":{{}}}}'


SEQUENCES: dict[str, tuple[list[Event], list[str]]] = {
    "text": (
        [TextDelta(0, "Par"), TextDelta(0, "is."), ChoiceFinished(0, "stop")],
        [open_block(0, TEXT_BLOCK), delta(0, text("Par")), delta(0, text("is.")), close(0), *end("end_turn")],
    ),
    "nothing at all": ([ChoiceFinished(0, "length")], end("max_tokens")),
    "not even an end": ([], end("end_turn")),
    "a stop sequence": (
        [TextDelta(0, "a"), ChoiceFinished(0, "stop", "\n")],
        [open_block(0, TEXT_BLOCK), delta(0, text("a")), close(0), *end("stop_sequence", '"\\n"')],
    ),
    "thinking, then text": (
        [ReasoningDelta(0, "h"), ReasoningDelta(0, "m"), TextDelta(0, "so"), ChoiceFinished(0, "stop")],
        [
            open_block(0, THINKING_BLOCK), delta(0, thought("h")), delta(0, thought("m")), delta(0, SIGNED), close(0),
            open_block(1, TEXT_BLOCK), delta(1, text("so")), close(1), *end("end_turn"),
        ],
    ),
    "thinking cut off": (
        [ReasoningDelta(0, "h"), ChoiceFinished(0, "length")],
        [open_block(0, THINKING_BLOCK), delta(0, thought("h")), delta(0, SIGNED), close(0), *end("max_tokens")],
    ),
    "text, then two calls": (
        [
            TextDelta(0, "I will"),
            ToolCallStarted(0, "toolu_1", "f"), ToolCallDelta(0, '{"x"'), ToolCallDelta(0, ":1}"),
            ToolCallStarted(0, "toolu_2", "f"), ToolCallDelta(0, "{}"), ChoiceFinished(0, "tool_calls"),
        ],
        [
            open_block(0, TEXT_BLOCK), delta(0, text("I will")), close(0),
            open_block(1, call_block("toolu_1", "f")),
            delta(1, arguments('{"x"')), delta(1, arguments(":1}")), close(1),
            open_block(2, call_block("toolu_2", "f")), delta(2, arguments("{}")), close(2), *end("tool_use"),
        ],
    ),
    "text after a call": (
        [ToolCallStarted(0, "toolu_1", "f"), TextDelta(0, "done"), ChoiceFinished(0, "tool_calls")],
        [
            open_block(0, call_block("toolu_1", "f")), close(0),
            open_block(1, TEXT_BLOCK), delta(1, text("done")), close(1), *end("tool_use"),
        ],
    ),
    "a call that was none": (
        [
            ToolCallStarted(0, "toolu_1", "f"), ToolCallDelta(0, '{"x'), ToolCallAbandoned(0), TextDelta(0, "f(x"),
            ChoiceFinished(0, "length"),
        ],
        [
            open_block(0, call_block("toolu_1", "f")), delta(0, arguments('{"x')), close(0),
            open_block(1, TEXT_BLOCK), delta(1, text("f(x")), close(1), *end("max_tokens"),
        ],
    ),
    "what is empty opens nothing": (
        [
            TextDelta(0, "", (TokenLogprob("", b"", 0.0),)), ReasoningDelta(0, ""), TextDelta(0, "a"),
            ReasoningDelta(0, ""), TextDelta(0, "b"), ChoiceFinished(0, "stop"),
        ],
        [open_block(0, TEXT_BLOCK), delta(0, text("a")), delta(0, text("b")), close(0), *end("end_turn")],
    ),
    "other choices are not Anthropic's": (
        [
            TextDelta(1, "x"), TextDelta(0, "a"), ToolCallStarted(1, "t", "f"), ChoiceFinished(1, "tool_calls"),
            TextDelta(0, "b"), ChoiceFinished(0, "stop"), ReasoningDelta(1, "y"),
        ],
        [open_block(0, TEXT_BLOCK), delta(0, text("a")), delta(0, text("b")), close(0), *end("end_turn")],
    ),
}  # fmt: skip


def frames_of(sent: bytes) -> list[str]:
    """The data of whole frames, each of which is named as its data says."""
    assert sent == b"" or sent.endswith(b"\n\n")
    found = []
    for frame in sent.decode().split("\n\n")[:-1]:
        event, data = frame.split("\n")
        assert event == f"event: {json.loads(data.removeprefix('data: '))['type']}"
        found.append(data.removeprefix("data: "))
    return found


def stream_of(events: list[Event]) -> list[str]:
    stream = DIALECT.encode_stream(REPLY)
    frames = frames_of(stream.start())
    for event in events:
        frames += frames_of(stream.feed(event))
    return frames


@pytest.mark.parametrize(("events", "expected"), SEQUENCES.values(), ids=SEQUENCES)
def test_sequences(events: list[Event], expected: list[str]) -> None:
    frames = stream_of([*events, DONE])
    assert frames == [START, *expected]
    for frame in frames:
        CLIENT_EVENT.validate_json(frame)


@pytest.mark.parametrize(("events", "expected"), SEQUENCES.values(), ids=SEQUENCES)
def test_a_failure_ends_the_stream_wherever_it_comes(events: list[Event], expected: list[str]) -> None:
    for cut in range(len(events) + 1):
        stream = DIALECT.encode_stream(REPLY)
        before = frames_of(stream.start()) + [
            frame for event in events[:cut] for frame in frames_of(stream.feed(event))
        ]
        assert before == [START, *expected][: len(before)]
        assert frames_of(stream.fail(EngineFailed("It broke."))) == [
            '{"type":"error","error":{"type":"api_error","message":"It broke."}}',
            STOP,
        ]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Overloaded("Full."), "overloaded_error", "Full."),
        (ContextLengthExceeded(9, 8), "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
    ],
)
def test_failures_are_worded_as_in_responses(error: Any, kind: str, message: str) -> None:
    told, _ = frames_of(DIALECT.encode_stream(REPLY).fail(error))
    assert json.loads(told)["error"] == {"type": kind, "message": message}


def test_pings_go_between_frames_and_change_nothing() -> None:
    stream = DIALECT.encode_stream(REPLY)
    stream.start()
    first = stream.feed(TextDelta(0, "a"))
    assert stream.keep_alive() == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert frames_of(first + stream.feed(TextDelta(0, "b"))) == [
        open_block(0, TEXT_BLOCK),
        delta(0, text("a")),
        delta(0, text("b")),
    ]


def reassembled(frames: list[str]) -> dict[str, Any]:
    """The message that a client puts together, following Anthropic's documentation of streams."""
    message: dict[str, Any] = {}
    pieces: dict[int, list[str]] = {}
    for frame in map(json.loads, frames):
        match frame["type"]:
            case "message_start":
                message = frame["message"]
            case "content_block_start":
                assert frame["index"] == len(message["content"])
                message["content"].append(frame["content_block"])
            case "content_block_delta":
                assert frame["index"] == len(message["content"]) - 1
                _grow(message["content"][-1], frame["delta"], pieces.setdefault(frame["index"], []))
            case "message_delta":
                message |= frame["delta"]
                message["usage"] |= frame["usage"]
    for index, texts in pieces.items():
        if texts:
            message["content"][index]["input"] = json.loads("".join(texts))
    return message


def _grow(block: dict[str, Any], added: dict[str, str], texts: list[str]) -> None:
    match added["type"]:
        case "text_delta":
            block["text"] += added["text"]
        case "thinking_delta":
            block["thinking"] += added["thinking"]
        case "signature_delta":
            block["signature"] += added["signature"]
        case "input_json_delta":
            texts.append(added["partial_json"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.text(min_size=1, max_size=10)
CALLS = st.builds(
    ToolCall,
    st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True),
    st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True),
    st.just("") | st.dictionaries(st.text(max_size=5), JSON, max_size=3).map(json.dumps),
)
PARTS = st.lists(st.builds(Text, WORDS) | st.builds(Reasoning, WORDS) | CALLS, max_size=6)


def well_formed(parts: list[Part]) -> tuple[Part, ...]:
    """As `Choice` promises: neighbours differ in kind, except calls."""
    return tuple(
        part
        for i, part in enumerate(parts)
        if isinstance(part, ToolCall) or i == 0 or type(parts[i - 1]) is not type(part)
    )


CHOICES = st.builds(
    Choice,
    parts=PARTS.map(well_formed),
    finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
    stop_sequence=st.none() | WORDS,
)
COUNT = st.integers(0, 100)
USAGES = st.builds(
    Usage,
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    cached_tokens=COUNT,
    prefix_stored_tokens=COUNT,
    reasoning_tokens=COUNT,
)


@given(st.builds(Completion, choices=st.lists(CHOICES, min_size=1, max_size=2).map(tuple), usage=USAGES))
def test_a_stream_says_what_the_response_says(completion: Completion) -> None:
    frames = stream_of(list(events_of(completion)))
    for frame in frames:
        CLIENT_EVENT.validate_json(frame)
    assert frames[-1] == STOP
    assert reassembled(frames) == json.loads(DIALECT.encode(completion, REPLY))


@given(USAGES)
def test_the_prompt_is_as_long_at_the_end_as_at_the_start(usage: Usage) -> None:
    stream = DIALECT.encode_stream(Reply(id="a", model="m", created=1, prompt_tokens=usage.prompt_tokens))
    start, ending = (json.loads(frames_of(sent)[0]) for sent in (stream.start(), stream.feed(Done(usage))))
    for counts in (start["message"]["usage"], ending["usage"]):
        prompt = counts["input_tokens"] + counts["cache_creation_input_tokens"] + counts["cache_read_input_tokens"]
        assert prompt == usage.prompt_tokens
        assert counts["input_tokens"] > 0 or not prompt
