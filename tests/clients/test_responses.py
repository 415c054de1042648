"""The official `openai` client's responses, unmodified, against a server process that repeats the last user message."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.clients.clients import openai_client
from tests.server_process import ServerProcess

MODEL = "default"
TOOL: Any = {
    "type": "function",
    "name": "forecast",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    "strict": True,
}


@pytest.fixture
def client(scripted_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai_client(scripted_server) as client:
        yield client


def test_create(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="How are you?", instructions="Be kind.")

    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert response.output_text == "How are you?"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0


def test_a_stream_ends_with_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="one two three") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()

    assert deltas == ["one ", "two ", "three"]
    assert response.output_text == "one two three"


def test_a_cut_response_is_incomplete(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="one two three", max_output_tokens=2)

    assert (response.status, response.output_text) == ("incomplete", "one two ")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_loop_of_a_tool(client: openai.OpenAI, streamed: bool) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "Will it rain?", "tools": [TOOL], "tool_choice": "required"}
    if streamed:
        with client.responses.stream(**asked) as stream:
            called: Any = stream.get_final_response()
    else:
        called = client.responses.create(**asked)
    (call,) = called.output
    assert (call.type, call.name, call.arguments) == ("function_call", "forecast", "{}")

    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    closed = client.responses.create(model=MODEL, input=output, previous_response_id=called.id, tools=[TOOL])
    assert closed.output_text == "Will it rain?"


def test_stored_responses(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="hi")

    assert client.responses.retrieve(response.id) == response
    assert [item.type for item in client.responses.input_items.list(response.id)] == ["message"]
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match="not stored here"):
        client.responses.retrieve(response.id)


def test_a_compacted_conversation_is_input_again(client: openai.OpenAI) -> None:
    compacted = client.responses.compact(model=MODEL, input=[{"role": "user", "content": "hi"}])

    items: Any = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
    assert client.responses.create(model=MODEL, input=[*items, {"role": "user", "content": "on"}]).output_text == "on"


def test_tokens_are_counted_as_create_counts_them(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "input": "How are you?", "instructions": "Be kind."}
    response = client.responses.create(**asked)
    assert response.usage is not None
    assert client.responses.input_tokens.count(**asked).input_tokens == response.usage.input_tokens == 5
    further = client.responses.input_tokens.count(model=MODEL, input="On.", previous_response_id=response.id)
    assert further.input_tokens == 7


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_errors_have_their_class(client: openai.OpenAI, streamed: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="not stored here") as caught:
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_0", stream=streamed)
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nothing-like-it", input="x", stream=streamed)
