"""The official `openai` client, unmodified, against a server process."""

import json
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.claude_code.agent_conversation import ARGUMENTS, CLOSING
from tests.clients.clients import openai_client
from tests.server_process import ServerProcess

MODEL = "default"
DEMO = "SmolLM2-135M-Instruct"
FRANCE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
GENERATE = {"Cache-Control": "no-cache"}
BASH: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "Bash",
        "description": "Runs a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}


@pytest.fixture
def demo(demo_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai_client(demo_server) as client:
        yield client


@pytest.fixture
def agent(agent_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai_client(agent_server) as client:
        yield client


@pytest.fixture
def scripted(scripted_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai_client(scripted_server) as client:
        yield client


@pytest.mark.model
def test_models(demo: openai.OpenAI) -> None:
    (listed,) = demo.models.list().data
    assert (listed.id, listed.object) == (DEMO, "model")
    assert demo.models.retrieve(DEMO) == listed
    with pytest.raises(openai.NotFoundError, match="llama3"):
        demo.models.retrieve("llama3")


@pytest.mark.model
def test_chat(demo: openai.OpenAI) -> None:
    completion = demo.chat.completions.create(model=DEMO, max_completion_tokens=16, temperature=0, messages=FRANCE)

    (choice,) = completion.choices
    assert (completion.object, completion.model) == ("chat.completion", DEMO)
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "stop", "assistant")
    assert "Paris" in choice.message.content
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > 0


@pytest.mark.model
def test_a_stream_says_what_chat_says(demo: openai.OpenAI) -> None:
    asked = {"model": DEMO, "max_tokens": 16, "temperature": 0}
    asked["messages"] = [{"role": "user", "content": "What is the capital of Italy?"}]
    chunks = list(demo.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    whole = demo.chat.completions.create(**asked, extra_headers=GENERATE)

    *parts, last = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    assert text == whole.choices[0].message.content != ""
    assert [chunk.choices[0].finish_reason for chunk in parts] == [None] * (len(parts) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert (last.choices, last.usage.completion_tokens) == ([], whole.usage.completion_tokens)
    assert {chunk.usage for chunk in parts} == {None}


@pytest.mark.model
def test_logprobs(demo: openai.OpenAI) -> None:
    completion = demo.chat.completions.create(
        model=DEMO, max_tokens=4, temperature=0, messages=FRANCE, logprobs=True, top_logprobs=3
    )

    (choice,) = completion.choices
    tokens = choice.logprobs.content
    assert len(tokens) == completion.usage.completion_tokens == 4
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    for token in tokens:
        best, *others = token.top_logprobs
        assert (best.token, best.logprob) == (token.token, token.logprob)
        assert 0 >= best.logprob >= others[0].logprob >= others[1].logprob


@pytest.mark.model
def test_two_answers_of_one_seed_differ_and_come_again(demo: openai.OpenAI) -> None:
    asked = {"model": DEMO, "max_tokens": 8, "temperature": 1.5, "seed": 7, "n": 2}
    asked["messages"] = [{"role": "user", "content": "Write a poem."}]
    first = demo.chat.completions.create(**asked)
    again = demo.chat.completions.create(**asked, extra_headers=GENERATE)

    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1]
    assert texts[0] != texts[1]
    assert [choice.message.content for choice in again.choices] == texts
    assert first.usage.completion_tokens == 16


@pytest.mark.model
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_loop_of_a_tool(agent: openai.OpenAI, streamed: bool) -> None:
    def ask(messages: list[ChatCompletionMessageParam]) -> openai.types.chat.chat_completion.Choice:
        asked = {"model": MODEL, "max_tokens": 100, "messages": messages, "tools": [BASH]}
        if not streamed:
            return agent.chat.completions.create(**asked).choices[0]
        with agent.chat.completions.stream(**asked) as stream:
            return stream.get_final_completion().choices[0]

    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"Write it down (streamed: {streamed})."}]
    called = ask(messages)
    (call,) = called.message.tool_calls
    assert (called.finish_reason, called.message.content or None) == ("tool_calls", None)
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "Bash", ARGUMENTS)

    messages += [called.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    closed = ask(messages)
    assert (closed.finish_reason, closed.message.content, closed.message.tool_calls) == ("stop", CLOSING, None)


@pytest.mark.parametrize(
    ("changes", "error", "code", "param"),
    [
        ({"model": "llama3"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        ({"temperature": 2.5}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"n": "two"}, openai.BadRequestError, "invalid_type", "n"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            openai.BadRequestError,
            "invalid_value",
            "messages[0].role",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 200_000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
    ],
    ids=["model", "no messages", "temperature", "type", "role", "context"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_errors_have_their_class(
    scripted: openai.OpenAI, changes, error: type[openai.APIStatusError], code: str, param: str, streamed: bool
) -> None:
    asked = {"model": MODEL, "messages": FRANCE, "stream": streamed, **changes}
    with pytest.raises(error) as caught:
        scripted.chat.completions.create(**asked)

    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.request_id


def test_a_forced_tool_is_called(scripted: openai.OpenAI) -> None:
    completion = scripted.chat.completions.create(
        model=MODEL, messages=FRANCE, tools=[BASH], tool_choice={"type": "function", "function": {"name": "Bash"}}
    )
    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("Bash", "{}")
