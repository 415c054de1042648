import time

import pytest

from service.executor.prompt.hf_messages import CallStyle, with_tools
from service.generation import Message, ToolCall
from tests.executor.templates import called


@pytest.mark.parametrize(("arguments", "expected"), [("", {}), ("[1]", "[1]"), ("{", "{"), ("[" * 9999, "[" * 9999)])
def test_arguments_that_are_no_object_pass_as_they_are(arguments: str, expected: object) -> None:
    message = Message(role="assistant", tool_calls=(ToolCall("c", "f", arguments),))
    assert with_tools((message,), CallStyle())[0]["tool_calls"][0]["function"]["arguments"] == expected


def test_ids_tell_tool_and_place_where_the_model_was_trained_on_that() -> None:
    calls = (ToolCall("call00000", "look", "{}"), ToolCall("call00001", "go", "{}"))
    _, made, *results = with_tools(called(*calls), CallStyle(indexed_ids=True))
    assert [call["id"] for call in made["tool_calls"]] == ["functions.look:0", "functions.go:1"]
    assert [result["tool_call_id"] for result in results] == ["functions.look:0", "functions.go:1"]


def test_results_find_their_calls_in_linear_time() -> None:
    messages = [m for i in range(10_000) for m in called(ToolCall(f"call{i:05d}", "look", "{}"))]
    started = time.process_time()
    assert len(with_tools(tuple(messages), CallStyle())) == 30_000
    assert time.process_time() - started < 3.0  # looking through the conversation for each takes 15
