"""The official `anthropic` client, unmodified, against a server process."""

from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from tests.claude_code.agent_conversation import ARGUMENTS, CLOSING
from tests.clients.clients import anthropic_client, prompt_tokens
from tests.server_process import ServerProcess

MODEL = "default"
FRANCE: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
GENERATE = {"Cache-Control": "no-cache"}
BASH: ToolParam = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}


@pytest.fixture
def demo(demo_server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(demo_server) as client:
        yield client


@pytest.fixture
def agent(agent_server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(agent_server) as client:
        yield client


@pytest.fixture
def scripted(scripted_server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(scripted_server) as client:
        yield client


@pytest.mark.model
def test_create(demo: anthropic.Anthropic) -> None:
    message = demo.messages.create(model=MODEL, max_tokens=16, messages=FRANCE)

    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert [block.type for block in message.content] == ["text"]
    assert "Paris" in message.content[0].text
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert prompt_tokens(message.usage) > message.usage.output_tokens > 0


@pytest.mark.model
def test_a_stream_says_what_create_says(demo: anthropic.Anthropic) -> None:
    question: list[MessageParam] = [{"role": "user", "content": "What is the capital of Italy?"}]
    with demo.messages.stream(model=MODEL, max_tokens=16, messages=question) as stream:
        kinds = [event.type for event in stream if event.type not in ("text", "ping")]
        streamed = stream.get_final_message()
    whole = demo.messages.create(model=MODEL, max_tokens=16, messages=question, extra_headers=GENERATE)

    assert streamed.content[0].text == whole.content[0].text != ""
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.model
@pytest.mark.parametrize(
    ("arguments", "stop_reason", "stop_sequence"),
    [
        ({"max_tokens": 3}, "max_tokens", None),
        ({"max_tokens": 16, "stop_sequences": ["Paris"]}, "stop_sequence", "Paris"),
    ],
)
def test_why_an_answer_ends(demo: anthropic.Anthropic, arguments, stop_reason: str, stop_sequence: str | None) -> None:
    message = demo.messages.create(model=MODEL, messages=FRANCE, **arguments)

    assert (message.stop_reason, message.stop_sequence) == (stop_reason, stop_sequence)
    assert "Paris" not in message.content[0].text


@pytest.mark.model
def test_tokens_are_counted_as_create_counts_them(agent: anthropic.Anthropic) -> None:
    counted = agent.messages.count_tokens(model=MODEL, system="You are terse.", messages=FRANCE, tools=[BASH])
    bare = agent.messages.count_tokens(model=MODEL, messages=FRANCE)
    message = agent.messages.create(model=MODEL, max_tokens=1, system="You are terse.", messages=FRANCE, tools=[BASH])

    assert counted.input_tokens == prompt_tokens(message.usage) > bare.input_tokens > 0


@pytest.mark.model
def test_a_prompt_over_the_context_says_both_numbers(demo: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d{4,} tokens > 8192 maximum"):
        demo.messages.create(model=MODEL, max_tokens=16, messages=[{"role": "user", "content": "again " * 9000}])


@pytest.mark.model
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_loop_of_a_tool(agent: anthropic.Anthropic, streamed: bool) -> None:
    def ask(messages: list[MessageParam]) -> anthropic.types.Message:
        asked = {"model": MODEL, "max_tokens": 100, "messages": messages, "tools": [BASH]}
        if not streamed:
            return agent.messages.create(**asked)
        with agent.messages.stream(**asked) as stream:
            return stream.get_final_message()

    messages: list[MessageParam] = [{"role": "user", "content": f"Please write it down (streamed: {streamed})."}]
    called = ask(messages)
    (call,) = called.content
    assert (called.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "Bash", ARGUMENTS)

    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "done"}]}
    messages += [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    closed = ask(messages)
    assert (closed.stop_reason, closed.content[0].text) == ("end_turn", CLOSING)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "llama3"}, anthropic.NotFoundError, "llama3"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"extra_body": {"temperature": 1.5}}, anthropic.BadRequestError, "temperature"),
        ({"messages": [{"role": "robot", "content": "x"}]}, anthropic.BadRequestError, "role"),
        ({"tool_choice": {"type": "tool", "name": "Bash"}}, anthropic.BadRequestError, "Bash"),
    ],
    ids=["model", "no messages", "temperature", "role", "tool that is not there"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_errors_have_their_class(
    scripted: anthropic.Anthropic, changes, error: type[anthropic.APIStatusError], message: str, streamed: bool
) -> None:
    asked = {"model": MODEL, "max_tokens": 16, "messages": FRANCE, "stream": streamed, **changes}
    with pytest.raises(error, match=message) as caught:
        scripted.messages.create(**asked)

    body = caught.value.body
    assert (body["type"], set(body["error"])) == ("error", {"type", "message"})
    assert caught.value.request_id == body["request_id"]


def test_models_have_every_field_of_a_model(scripted_server: ServerProcess) -> None:
    with anthropic.Anthropic(base_url=scripted_server.url, api_key="any", _strict_response_validation=True) as strict:
        (model,) = strict.models.list()
        assert strict.models.retrieve(model.id) == model
    assert (model.max_input_tokens, model.lifecycle) == (200_000, "active")
    assert model.capabilities is not None
    assert model.capabilities.structured_outputs.supported
    assert not model.capabilities.thinking.types.enabled.supported


def test_a_forced_tool_is_called(scripted: anthropic.Anthropic) -> None:
    message = scripted.messages.create(
        model=MODEL, max_tokens=16, messages=FRANCE, tools=[BASH], tool_choice={"type": "any"}
    )
    assert [(block.type, block.name, block.input) for block in message.content] == [("tool_use", "Bash", {})]
    assert message.stop_reason == "tool_use"
