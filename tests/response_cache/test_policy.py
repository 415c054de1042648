"""What may be kept, and who is answered from what was kept."""

from typing import Any

import pytest

from service.events import ChoiceFinished, Event, TextDelta, ToolCallAbandoned, events_of
from service.generation import (
    Choice,
    Completion,
    FinishReason,
    GenerationRequest,
    Reasoning,
    ResponseFormat,
    SamplingParams,
    Text,
    ToolCall,
    Usage,
)
from service.response_cache.policy import may_look_up, may_store
from service.settings import CachePolicy
from tests.response_cache.answers import answer, ask

JSON = ResponseFormat(kind="json_object")
LIST = ResponseFormat(kind="json_schema", schema={"type": "array"})
CALL = ToolCall("id", "f", '{"a": 1}')


@pytest.mark.parametrize(
    ("policy", "sampling", "expected"),
    [
        ("all", {"temperature": 1.0}, True),
        ("all", {}, True),
        ("deterministic", {"temperature": 1.0}, False),
        ("deterministic", {"temperature": 1.0, "seed": 0}, True),
        ("deterministic", {"temperature": 0.0}, True),
        ("off", {"temperature": 0.0}, False),
    ],
)
def test_policy(policy: CachePolicy, sampling: dict[str, Any], expected: bool) -> None:
    assert may_look_up(ask(sampling=SamplingParams(**sampling)), policy) is expected


STORED: list[tuple[str, GenerationRequest, Completion, bool]] = [
    ("stopped", ask(), answer(Text("a")), True),
    ("cut at max_tokens", ask(max_tokens=1), answer(Text("a"), finish_reason="length"), True),
    ("cut before max_tokens", ask(max_tokens=2), answer(Text("a"), finish_reason="length"), False),
    ("cut without a limit", ask(), answer(Text("a"), finish_reason="length"), False),
    ("calls", ask(), answer(CALL, finish_reason="tool_calls"), True),
    ("thinking and calls", ask(), answer(Reasoning("a"), CALL, finish_reason="tool_calls"), True),
    ("two choices", ask(n=2), answer(Text("a"), choices=2), True),
    ("JSON", ask(response_format=JSON), answer(Text('{"a": [1]}')), True),
    (
        "of a grammar",
        ask(response_format=ResponseFormat(kind="grammar", grammar="start: /a/")),
        answer(Text("a")),
        True,
    ),
    (
        "JSON cut at max_tokens",
        ask(max_tokens=1, response_format=JSON),
        answer(Text('{"a": '), finish_reason="length"),
        True,
    ),
    ("a call where JSON was asked", ask(response_format=JSON), answer(CALL, finish_reason="tool_calls"), True),
    ("empty", ask(), answer(), False),
    (
        "one of two is empty",
        ask(n=2),
        Completion(choices=(*answer(Text("a")).choices, *answer().choices), usage=answer().usage),
        False,
    ),
    ("one of two is missing", ask(n=2), answer(Text("a")), False),
    ("no choice", ask(), answer(Text("a"), choices=0), False),
    ("calls without a call", ask(), answer(Text("a"), finish_reason="tool_calls"), False),
    ("arguments that are cut", ask(), answer(ToolCall("id", "f", '{"a": '), finish_reason="length"), False),
    ("arguments that are no object", ask(), answer(ToolCall("id", "f", "[1]"), finish_reason="tool_calls"), False),
    ("a list under a schema", ask(response_format=LIST), answer(Text("[1, 2]")), True),
    ("a list that is cut", ask(response_format=LIST), answer(Text("[1, 2")), False),
    ("a list where an object was asked", ask(response_format=JSON), answer(Text("[1, 2]")), False),
    ("text where JSON was asked", ask(response_format=JSON), answer(Text("Sure!")), False),
]


@pytest.mark.parametrize(
    ("request_", "completion", "expected"), [case[1:] for case in STORED], ids=[case[0] for case in STORED]
)
def test_what_is_stored(request_: GenerationRequest, completion: Completion, expected: bool) -> None:
    assert may_store(request_, completion, list(events_of(completion))) is expected


def test_a_call_that_broke_off_is_not_stored() -> None:
    events: list[Event] = [ToolCallAbandoned(0), TextDelta(0, "<tool_call>{")]
    assert not may_store(ask(), answer(Text("<tool_call>{")), events)


Ends = list[tuple[FinishReason, int | None]]
STOP, UNKNOWN_STOP, FULL, CUT, UNKNOWN = ("stop", 90), ("stop", None), ("length", 100), ("length", 50), ("length", None)


@pytest.mark.parametrize(
    ("max_tokens", "ends", "total", "expected"),
    [
        (100, [STOP, FULL], 190, True),
        (100, [STOP, CUT], 140, False),
        (100, [FULL, FULL], 200, True),
        (100, [FULL, CUT], 150, False),
        (None, [STOP, FULL], 190, False),
        (None, [STOP, STOP], 180, True),
        (100, [UNKNOWN_STOP, UNKNOWN], 140, False),
        (100, [UNKNOWN, UNKNOWN], 200, True),
        (100, [UNKNOWN_STOP, UNKNOWN_STOP], 140, True),
    ],
)
def test_each_choice_that_is_cut_must_have_all_its_tokens(
    max_tokens: int | None, ends: Ends, total: int, expected: bool
) -> None:
    completion = Completion(
        choices=tuple(Choice(parts=(Text("a"),), finish_reason=reason) for reason, _ in ends),
        usage=Usage(prompt_tokens=3, completion_tokens=total),
    )
    events: list[Event] = [ChoiceFinished(index, reason, tokens=tokens) for index, (reason, tokens) in enumerate(ends)]
    assert may_store(ask(n=2, max_tokens=max_tokens), completion, events) is expected
