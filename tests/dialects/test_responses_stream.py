"""Streams of the Responses dialect: every sequence of events, and each stream put together again is the answer."""

import json
from typing import Any, get_args

import pytest
from openai.types.responses import Response, ResponseStreamEvent

from service.dialects.base import Reply
from service.dialects.openai_responses import OpenAIResponses
from service.dialects.openai_responses.items import seal
from service.errors import ContextLengthExceeded, EngineFailed, ServiceError
from service.events import (
    ChoiceFinished,
    CompletionBuilder,
    Done,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallAbandoned,
    ToolCallDelta,
    ToolCallStarted,
    WebSearched,
)
from service.generation import SamplingParams, SearchResult, TokenLogprob, Usage, WebSearch

DONE = Done(Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3, reasoning_tokens=2))
STOP, LENGTH, CALLS = (ChoiceFinished(0, reason) for reason in ("stop", "length", "tool_calls"))
EVENTS = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponseStreamEvent)[0])
}
TOOLS = [
    {"type": "function", "name": "f", "parameters": {}, "strict": False},
    {"type": "custom", "name": "patch"},
    {"type": "tool_search", "execution": "client"},
    {"type": "namespace", "name": "ns", "description": "", "tools": [{"type": "function", "name": "g"}]},
]


def asked(**fields: Any) -> tuple[OpenAIResponses, Reply]:
    dialect = OpenAIResponses()
    decoded = dialect.decode(json.dumps({"input": "hi", "tools": TOOLS, **fields}).encode(), SamplingParams())
    return dialect, Reply(id="0a", model="m", created=1_700_000_000, dialect_state=decoded.dialect_state)


def parsed(sent: bytes) -> list[dict[str, Any]]:
    """The events, each checked against the client's own type; their numbers have no gap."""
    events = []
    for frame in sent.decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        EVENTS[event["type"]].model_validate(event)
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(events)
        events.append(event)
    return events


def stream(events: list[Event], **fields: Any) -> list[dict[str, Any]]:
    dialect, reply = asked(**fields)
    encoder = dialect.encode_stream(reply)
    return parsed(encoder.start() + b"".join(encoder.feed(event) for event in events))


OPENING = ["created", "in_progress"]
MESSAGE = ["output_item.added", "content_part.added", "output_text.delta"]
MESSAGE_END = ["output_text.done", "content_part.done", "output_item.done"]
THOUGHT = ["output_item.added", "content_part.added", "reasoning_text.delta"]
THOUGHT_END = ["reasoning_text.done", "content_part.done", "output_item.done"]
SUMMARY = ["output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"]
SUMMARY_END = ["reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"]
CALL_DELTA, CALL_END = "function_call_arguments.delta", ["function_call_arguments.done", "output_item.done"]
CUSTOM = ["output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"]
SEARCH = ["output_item.added", *(f"web_search_call.{stage}" for stage in ("in_progress", "searching", "completed"))]
PAGE = SearchResult("https://plum.example/", "Plums", "They are blue.")
FOUND = WebSearch("c1", "web_search", '{"query":"x"}', (PAGE,))
FAILED = WebSearch("c2", "web_search", "{", error="invalid_tool_input")
TEXT, THINK = TextDelta(0, "a"), ReasoningDelta(0, "hm")


def call(name: str, *arguments: str) -> list[Event]:
    return [ToolCallStarted(0, "c1", name), *(ToolCallDelta(0, text) for text in arguments)]


SEQUENCES: dict[str, tuple[dict[str, Any], list[Event], list[str]]] = {
    "text": ({}, [TEXT, TEXT, STOP, DONE], [*MESSAGE, "output_text.delta", *MESSAGE_END, "completed"]),
    "nothing": ({}, [STOP, DONE], ["completed"]),
    "empty deltas": ({}, [TextDelta(0, ""), ReasoningDelta(0, ""), STOP, DONE], ["completed"]),
    "another choice": ({}, [TextDelta(1, "b"), ChoiceFinished(1, "stop"), STOP, DONE], ["completed"]),
    "cut text": ({}, [TEXT, LENGTH, DONE], [*MESSAGE, *MESSAGE_END, "incomplete"]),
    "reasoning": ({}, [THINK, TEXT, STOP, DONE], [*THOUGHT, *THOUGHT_END, *MESSAGE, *MESSAGE_END, "completed"]),
    "summaries": (
        {"reasoning": {"summary": "auto"}},
        [THINK, THINK, TEXT, STOP, DONE],
        [*SUMMARY, "reasoning_summary_text.delta", *SUMMARY_END, *MESSAGE, *MESSAGE_END, "completed"],
    ),
    "calls": (
        {},
        [TEXT, *call("f", '{"x"', ":1}"), *call("ns__g", "{}"), CALLS, DONE],
        [
            *(*MESSAGE, *MESSAGE_END),
            *("output_item.added", CALL_DELTA, CALL_DELTA, *CALL_END),
            *("output_item.added", CALL_DELTA, *CALL_END, "completed"),
        ],
    ),
    "a custom call": ({}, [*call("patch", '{"inp', 'ut":"x"}'), CALLS, DONE], [*CUSTOM, "completed"]),
    "a search for tools": (
        {},
        [*call("tool_search", '{"query":"x"}'), CALLS, DONE],
        ["output_item.added", "output_item.done", "completed"],
    ),
    "searches of the web": (
        {},
        [TEXT, WebSearched(0, FOUND), WebSearched(0, FAILED), TEXT, STOP, DONE],
        [
            *(*MESSAGE, *MESSAGE_END, *SEARCH, "output_item.done", *SEARCH, "output_item.done"),
            *(*MESSAGE, *MESSAGE_END, "completed"),
        ],
    ),
    "an abandoned call": (
        {},
        [*call("f", '{"x"'), ToolCallAbandoned(0), TextDelta(0, 'f{"x"'), STOP, DONE],
        ["output_item.added", CALL_DELTA, *MESSAGE, *MESSAGE_END, "completed"],
    ),
}


@pytest.mark.parametrize(("fields", "events", "kinds"), SEQUENCES.values(), ids=SEQUENCES)
def test_sequences(fields: dict[str, Any], events: list[Event], kinds: list[str]) -> None:
    sent = [event["type"].removeprefix("response.") for event in stream(events, **fields)]
    assert sent == [*OPENING, *kinds]


@pytest.mark.parametrize(("fields", "events", "kinds"), SEQUENCES.values(), ids=SEQUENCES)
def test_a_stream_ends_with_the_answer_that_is_not_streamed(
    fields: dict[str, Any], events: list[Event], kinds: list[str]
) -> None:
    builder = CompletionBuilder()
    for event in events:
        builder.feed(event)
    dialect, reply = asked(**fields)
    whole = json.loads(dialect.encode(builder.build(), reply))
    streamed = stream(events, **fields)[-1]["response"]
    Response.model_validate(whole)
    for response in (whole, streamed):
        for item in response["output"]:
            del item["id"]  # an abandoned call takes a place
    assert streamed == whole


@pytest.mark.parametrize(("fields", "events", "kinds"), SEQUENCES.values(), ids=SEQUENCES)
def test_finished_items_are_those_of_the_response(
    fields: dict[str, Any], events: list[Event], kinds: list[str]
) -> None:
    sent = stream(events, **fields)
    finished = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    assert finished == sent[-1]["response"]["output"]


@pytest.mark.parametrize(("fields", "events", "kinds"), SEQUENCES.values(), ids=SEQUENCES)
def test_a_stream_can_fail_anywhere(fields: dict[str, Any], events: list[Event], kinds: list[str]) -> None:
    for length in range(len(events)):
        dialect, reply = asked(**fields)
        encoder = dialect.encode_stream(reply)
        sent = encoder.start() + b"".join(encoder.feed(event) for event in events[:length])
        last = parsed(sent + encoder.keep_alive() + encoder.fail(EngineFailed("It broke.")))[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"] == {"code": "server_error", "message": "It broke."}
        assert len(dialect.kept) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineFailed("x"), "server_error"), (ContextLengthExceeded(9, 8), "invalid_prompt")],
)
def test_failures_have_codes_that_clients_know(error: ServiceError, code: str) -> None:
    dialect, reply = asked()
    assert parsed(dialect.encode_stream(reply).fail(error))[0]["response"]["error"]["code"] == code


def test_items_are_whole() -> None:
    events = [THINK, TEXT, *call("ns__g", '{"x":1}'), *call("patch", '{"input":"+ \\"a\\""}'), CALLS, DONE]
    response = stream(events, include=["reasoning.encrypted_content"])[-1]["response"]
    reasoning, message, function, custom = response["output"]
    assert reasoning == {
        "type": "reasoning",
        "id": "rs_0a00",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "encrypted_content": seal("hm"),
    }
    assert message == {
        "type": "message",
        "id": "msg_0a01",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
    }
    assert function == {
        "type": "function_call",
        "id": "fc_0a02",
        "status": "completed",
        "call_id": "c1",
        "name": "g",
        "namespace": "ns",
        "arguments": '{"x":1}',
    }
    assert custom["input"] == '+ "a"'
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


def test_a_cut_response_says_why() -> None:
    response = stream([TEXT, LENGTH, DONE])[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][-1]["status"] == "incomplete"


def test_logprobs_come_with_their_text() -> None:
    delta = TextDelta(0, "a", (TokenLogprob("a", b"a", -0.5),))
    sent = stream([delta, STOP, DONE], include=["message.output_text.logprobs"])
    wanted = [{"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}]
    with_logprobs = [event["type"] for event in sent if event.get("logprobs") == wanted]
    assert with_logprobs == ["response.output_text.delta", "response.output_text.done"]
    assert sent[-1]["response"]["output"][0]["content"][0]["logprobs"] == wanted


def test_the_request_is_repeated() -> None:
    response = stream([STOP, DONE], instructions="s", metadata={"a": "b"}, max_output_tokens=9, store=False)[-1][
        "response"
    ]
    assert (response["instructions"], response["metadata"], response["store"]) == ("s", {"a": "b"}, False)
    assert response["tools"] == TOOLS


@pytest.mark.parametrize("store", [True, None, False])
def test_a_response_is_kept_before_its_end_is_sent(store: bool | None) -> None:
    dialect, reply = asked(store=store)
    encoder = dialect.encode_stream(reply)
    for event in (TEXT, STOP):
        encoder.feed(event)
    assert len(dialect.kept) == 0
    last = encoder.feed(DONE)
    assert b"response.completed" in last
    if store is False:
        assert len(dialect.kept) == 0
    else:
        kept = dialect.kept.of("").get("resp_0a")
        assert json.loads(kept.encoded)["output"][0]["content"][0]["text"] == "a"
        assert [json.loads(bytes(item))["content"] for item in kept.items] == ["hi"]
