"""Lines of streams, whatever white space is in a request and in what the model writes."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import Dialect, Reply
from service.dialects.openai_chat import OpenAIChat
from service.dialects.openai_completions import OpenAICompletions
from service.dialects.openai_responses import OpenAIResponses
from service.errors import EngineFailed, InvalidJson
from service.events import ChoiceFinished, Done, TextDelta, ToolCallDelta, ToolCallStarted
from service.generation import SamplingParams, Usage
from tests.examples import examples

FIELDS: dict[str, Any] = {
    "input": [{"role": "user", "content": "a\n\rb", "id": [1, {"a": 2}]}],
    "metadata": {"a": "b\r\n", "c": [1, {}], "é\u2028": 10**400},
    "user": [{"a": None}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": {}}}},
    "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "tool_search", "execution": "client"}],
}
CHAT = {"messages": [{"role": "user", "content": "a\nb"}], "metadata": {"a": ["b"]}, "max_tokens": 9}
STREAMED: list[tuple[Dialect, dict[str, Any]]] = [
    (OpenAIResponses(), FIELDS),
    (OpenAIChat(), CHAT),
    (AnthropicMessages(), CHAT),
    (OpenAICompletions(), {"prompt": "a\nb", "user": ["u"]}),
]
GAPS = st.text(" \t\r\n", max_size=3)
DONE = Done(Usage(prompt_tokens=1, completion_tokens=1))


def spaced(value: Any, gap: str, indent: str) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=(f"{gap},{gap}", f"{gap}:{gap}"))


def decoded(dialect: Dialect, body: bytes) -> Reply:
    state = dialect.decode(body, SamplingParams()).dialect_state
    return Reply(id="0a", model="m", created=1_700_000_000, dialect_state=state)


def streamed(dialect: Dialect, body: bytes, arguments: str) -> bytes:
    encoder, failing = (dialect.encode_stream(decoded(dialect, body)) for _ in range(2))
    calls = [
        event
        for name in ("f", "tool_search")
        for event in (ToolCallStarted(0, "c1", name), ToolCallDelta(0, arguments))
    ]
    events = [TextDelta(0, "a\r\nb"), *calls, ChoiceFinished(0, "tool_calls"), DONE]
    sent = encoder.start() + b"".join(map(encoder.feed, events)) + encoder.keep_alive()
    return sent + failing.start() + failing.fail(EngineFailed("broken\r\n"))


def json_lines(sent: bytes) -> list[Any]:
    """The JSON of the data lines. Other lines are those that server-sent events have."""
    found = []
    for line in re.split(r"\r\n|\r|\n", sent.decode()):
        field, colon, value = line.partition(":")
        if field == "data" and value != " [DONE]":
            found.append(json.loads(value))
        else:
            assert not line or (colon and field in ("", "event", "data"))
    return found


@pytest.mark.parametrize(("dialect", "fields"), STREAMED, ids=[dialect.name for dialect, _ in STREAMED])
@examples(100)
@example(gap="\n", indent="\n")
@example(gap="", indent="\r")
@given(gap=GAPS, indent=GAPS)
def test_white_space_breaks_no_line(dialect: Dialect, fields: dict[str, Any], gap: str, indent: str) -> None:
    arguments = spaced({"query": "x\n", "n": [1, 2]}, gap, indent)
    body = gap + spaced({**fields, "stream": True}, gap, indent) + gap
    assert json_lines(streamed(dialect, body.encode(), arguments))


@pytest.mark.parametrize("gap", ["", "\n"])
def test_a_response_repeats_values_as_they_were_sent(gap: str) -> None:
    numbers = ["1e999", "1.0", "-0", "1" * 5_000]
    metadata = f'{{"a":{gap}[{",".join(numbers)}]}}'
    body = json.dumps({**FIELDS, "metadata": 0, "stream": True}).replace('"metadata": 0', f'"metadata":{metadata}')
    sent = streamed(OpenAIResponses(), body.encode(), f"{{{gap}}}")
    assert sent.count(f'"metadata":{{"a":[{",".join(numbers)}]}}'.encode()) == 7


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"input":"s","metadata":{"a":"\xff"}}', "metadata.a"),
        (b'{"input":"s","user":"\xc3"}', "user"),
        (
            b'{"input":"s","tools":[{"type":"function","name":"f","description":"\xed\xa0\x80"}]}',
            "tools[0].description",
        ),
        (b'{"input":[{"role":"user","content":"x","id":"\xff"}]}', "input[0].id"),
    ],
)
def test_text_that_is_not_utf_8_is_refused_by_its_field(body: bytes, param: str) -> None:
    with pytest.raises(InvalidJson, match="UTF-8") as refused:
        OpenAIResponses().decode(body, SamplingParams())
    assert refused.value.param == param
