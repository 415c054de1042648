"""Streams of the chat dialect: exact chunks, and every stream put together again is the answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from service.dialects.base import Reply
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_chat.request import FUNCTIONS_STYLE
from service.errors import EngineFailed
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
from service.generation import (
    Choice,
    Completion,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

USAGE = Usage(prompt_tokens=10, completion_tokens=4)
DONE = Done(USAGE)
LOGPROB = TokenLogprob("a", b"a", -0.5)


def reply(**fields: Any) -> Reply:
    return Reply(**{"id": "0a1b", "model": "m", "created": 1_700_000_000, **fields})


def stream(events: list[Event], reply: Reply) -> bytes:
    encoder = OpenAIChat().encode_stream(reply)
    return encoder.start() + b"".join(encoder.feed(event) for event in events)


def chunks(sent: bytes) -> list[dict[str, Any]]:
    """The chunks of a whole stream, each checked against the client's own type."""
    *frames, done, rest = sent.decode().split("\n\n")
    assert done == "data: [DONE]"
    assert rest == ""
    parsed = []
    for frame in frames:
        assert frame.startswith("data: ")
        assert "\n" not in frame
        ChatCompletionChunk.model_validate_json(frame.removeprefix("data: "), strict=True)
        parsed.append(json.loads(frame.removeprefix("data: ")))
    return parsed


def test_the_whole_of_a_stream() -> None:
    def frame(delta: str, finish: str = "null") -> str:
        return (
            'data: {"id":"chatcmpl-0a1b","object":"chat.completion.chunk","created":1700000000,"model":"m",'
            f'"system_fingerprint":null,"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}\n\n'
        )

    assert stream([TextDelta(0, "Par"), TextDelta(0, "is"), ChoiceFinished(0, "stop"), DONE], reply()).decode() == (
        frame('{"role":"assistant","content":""}')
        + frame('{"content":"Par"}')
        + frame('{"content":"is"}')
        + frame("{}", '"stop"')
        + "data: [DONE]\n\n"
    )


def test_usage_comes_last_and_only_when_it_was_asked_for() -> None:
    events: list[Event] = [TextDelta(0, "a"), ChoiceFinished(0, "length"), DONE]
    assert all("usage" not in chunk for chunk in chunks(stream(events, reply())))
    *before, last = chunks(stream(events, reply(include_usage=True)))
    assert [chunk["usage"] for chunk in before] == [None] * 3
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 14


def start(index: int, call_id: str, name: str) -> dict[str, Any]:
    function = {"arguments": "", "name": name}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


def more(index: int, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


DELTAS: list[tuple[str, list[Event], list[dict[str, Any]]]] = [
    ("", [ReasoningDelta(0, "hm"), TextDelta(0, "a")], [{"reasoning_content": "hm"}, {"content": "a"}]),
    ("", [TextDelta(0, ""), ReasoningDelta(0, "")], []),
    (
        "",
        [
            ToolCallStarted(0, "c1", "f"),
            ToolCallDelta(0, ""),
            ToolCallDelta(0, '{"a"'),
            ToolCallDelta(0, ":1}"),
            ToolCallStarted(0, "c2", "g"),
            ToolCallDelta(0, "{}"),
        ],
        [start(0, "c1", "f"), more(0, '{"a"'), more(0, ":1}"), start(1, "c2", "g"), more(1, "{}")],
    ),
    (
        "",
        [
            ToolCallStarted(0, "c1", "f"),
            ToolCallDelta(0, '{"a"'),
            ToolCallAbandoned(0),
            TextDelta(0, "f{a"),
            ToolCallStarted(0, "c2", "f"),
        ],
        [start(0, "c1", "f"), more(0, '{"a"'), {"content": "f{a"}, start(1, "c2", "f")],
    ),
    (
        FUNCTIONS_STYLE,
        [ToolCallStarted(0, "c1", "f"), ToolCallDelta(0, "{}"), ToolCallStarted(0, "c2", "g"), ToolCallDelta(0, "{}")],
        [
            {"function_call": {"name": "f", "arguments": ""}},
            {"function_call": {"arguments": "{}"}},
            start(0, "c2", "g"),
            more(0, "{}"),
        ],
    ),
]


@pytest.mark.parametrize(("style", "events", "deltas"), DELTAS)
def test_deltas(style: str, events: list[Event], deltas: list[dict[str, Any]]) -> None:
    sent = chunks(stream([*events, DONE], reply(dialect_state=style)))
    assert [chunk["choices"][0]["delta"] for chunk in sent] == [{"role": "assistant", "content": ""}, *deltas]


def test_a_function_call_finishes_in_its_own_style() -> None:
    events: list[Event] = [ChoiceFinished(0, "tool_calls"), DONE]
    assert chunks(stream(events, reply()))[-1]["choices"][0]["finish_reason"] == "tool_calls"
    styled = chunks(stream(events, reply(dialect_state=FUNCTIONS_STYLE)))
    assert styled[-1]["choices"][0]["finish_reason"] == "function_call"


def test_logprobs_come_even_without_text() -> None:
    [_, first, second] = chunks(stream([TextDelta(0, "", (LOGPROB,)), TextDelta(0, "a"), DONE], reply()))
    assert first["choices"][0]["delta"] == {"content": ""}
    assert first["choices"][0]["logprobs"] == {
        "content": [{"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}],
        "refusal": None,
    }
    assert second["choices"][0]["logprobs"] is None


def test_every_choice_begins_with_its_role() -> None:
    events: list[Event] = [TextDelta(1, "b"), TextDelta(0, "a"), ChoiceFinished(2, "stop"), DONE]
    seen: dict[int, dict[str, Any]] = {}
    for chunk in chunks(stream(events, reply())):
        [choice] = chunk["choices"]
        seen.setdefault(choice["index"], choice["delta"])
    assert seen == {key: {"role": "assistant", "content": ""} for key in range(3)}


def test_a_failure_is_told_and_ends_the_stream() -> None:
    encoder = OpenAIChat().encode_stream(reply())
    error, done = encoder.fail(EngineFailed("The engine broke.")).decode().split("\n\n", 1)
    assert json.loads(error.removeprefix("data: ")) == {
        "error": {"message": "The engine broke.", "type": "server_error", "param": None, "code": "engine_failed"}
    }
    assert done == "data: [DONE]\n\n"


def test_keep_alive_is_no_chunk() -> None:
    assert OpenAIChat().encode_stream(reply()).keep_alive().startswith(b":")


TEXT = st.text(min_size=1)
CALLS = st.builds(ToolCall, st.text(min_size=1), st.text(min_size=1), TEXT)
LOGPROBS = st.lists(st.builds(TokenLogprob, st.text(), st.binary(), st.floats(max_value=0))).map(tuple)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    parts: list[Part] = []
    for part in draw(st.lists(st.builds(Text, TEXT) | st.builds(Reasoning, TEXT) | CALLS, max_size=6)):
        if isinstance(part, ToolCall) or not parts or type(parts[-1]) is not type(part):
            parts.append(part)
    return Choice(
        parts=tuple(parts),
        finish_reason=draw(st.sampled_from(["stop", "length", "tool_calls"])),
        logprobs=draw(LOGPROBS),
    )


def reassemble(sent: bytes) -> dict[int, dict[str, Any]]:
    """What a client puts together: the fields of each choice's message, logprobs and finish reason."""
    whole: dict[int, dict[str, Any]] = {}
    for chunk in chunks(sent):
        for choice in chunk["choices"]:
            found = whole.setdefault(
                choice["index"], {"content": "", "reasoning_content": "", "tool_calls": [], "logprobs": []}
            )
            delta = choice["delta"]
            for field in ("content", "reasoning_content"):
                found[field] += delta.get(field, "")
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] == len(found["tool_calls"])
                    found["tool_calls"].append({"id": call["id"], "type": "function", "function": call["function"]})
                else:
                    found["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            if choice["logprobs"]:
                found["logprobs"] += choice["logprobs"]["content"]
            assert "finish_reason" not in found
            if choice["finish_reason"]:
                found["finish_reason"] = choice["finish_reason"]
    return whole


@given(st.lists(choices(), min_size=1, max_size=3))
def test_a_stream_put_together_is_the_answer(answers: list[Choice]) -> None:
    completion = Completion(choices=tuple(answers), usage=USAGE)
    whole = reassemble(stream(list(events_of(completion)), reply()))
    for choice in json.loads(OpenAIChat().encode(completion, reply()))["choices"]:
        message = choice["message"]
        assert whole[choice["index"]] == {
            "content": message["content"] or "",
            "reasoning_content": message.get("reasoning_content", ""),
            "tool_calls": message.get("tool_calls", []),
            "logprobs": choice["logprobs"]["content"],
            "finish_reason": choice["finish_reason"],
        }
