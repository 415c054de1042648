"""One answer for every dialect: generated for one client, served to another, streamed and not."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message

from tests.claude_code.agent_conversation import ARGUMENTS
from tests.clients.clients import anthropic_client, openai_client, prompt_tokens
from tests.clients.test_anthropic import BASH as ANTHROPIC_BASH
from tests.clients.test_openai import BASH as OPENAI_BASH
from tests.server_process import ServerProcess

MISS, HIT = "anyclaude; fwd=uri-miss; stored", "anyclaude; hit"


class Clients:
    """Both clients of one server. Every way to ask gives the `Cache-Status` of the answer, and the answer."""

    def __init__(self, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
        self._chat = openai_client.chat.completions
        self._messages = anthropic_client.messages

    def openai(self, question: str, **asked: Any) -> tuple[str, Any]:
        raw = self._chat.with_raw_response.create(**_asked(question, asked))
        return raw.headers["cache-status"], raw.parse()

    def openai_streamed(self, question: str, **asked: Any) -> tuple[str, str]:
        """The text."""
        with self._chat.with_streaming_response.create(**_asked(question, asked), stream=True) as raw:
            chunks = list(raw.parse())
        return raw.headers["cache-status"], "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def anthropic(self, question: str, **asked: Any) -> tuple[str, Message]:
        raw = self._messages.with_raw_response.create(**_asked(question, asked))
        return raw.headers["cache-status"], raw.parse()

    def anthropic_streamed(self, question: str, **asked: Any) -> tuple[str, Message]:
        with self._messages.stream(**_asked(question, asked)) as stream:
            return stream.response.headers["cache-status"], stream.get_final_message()


def _asked(question: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {"model": "default", "max_tokens": 12, "messages": [{"role": "user", "content": question}], **changes}


@pytest.fixture
def demo(demo_server: ServerProcess) -> Iterator[Clients]:
    with openai_client(demo_server) as first, anthropic_client(demo_server) as second:
        yield Clients(first, second)


@pytest.fixture
def scripted(scripted_server: ServerProcess) -> Iterator[Clients]:
    with openai_client(scripted_server) as first, anthropic_client(scripted_server) as second:
        yield Clients(first, second)


@pytest.fixture
def agent(agent_server: ServerProcess) -> Iterator[Clients]:
    with openai_client(agent_server) as first, anthropic_client(agent_server) as second:
        yield Clients(first, second)


@pytest.mark.model
def test_asked_through_openai_served_to_anthropic(demo: Clients) -> None:
    question = "What is the capital of Spain?"
    miss, completion = demo.openai(question, max_tokens=4)
    hit, message = demo.anthropic(question, max_tokens=4)
    hit_streamed, streamed = demo.anthropic_streamed(question, max_tokens=4)

    assert (miss, hit, hit_streamed) == (MISS, HIT, HIT)
    assert message.content[0].text == streamed.content[0].text == completion.choices[0].message.content != ""
    assert completion.choices[0].finish_reason == "length"
    assert message.stop_reason == streamed.stop_reason == "max_tokens"
    assert prompt_tokens(message.usage) == prompt_tokens(streamed.usage) == completion.usage.prompt_tokens
    assert message.usage.output_tokens == streamed.usage.output_tokens == completion.usage.completion_tokens


@pytest.mark.model
def test_streamed_through_anthropic_served_to_openai(demo: Clients) -> None:
    question = "What is the capital of Greece?"
    miss, streamed = demo.anthropic_streamed(question)
    hit, completion = demo.openai(question)
    hit_streamed, text = demo.openai_streamed(question)

    assert (miss, hit, hit_streamed) == (MISS.removesuffix("; stored"), HIT, HIT)
    assert streamed.content[0].text == completion.choices[0].message.content == text != ""


@pytest.mark.model
def test_a_tool_call_crosses_too(agent: Clients) -> None:
    question = "Please write it down for everybody."
    miss, completion = agent.openai(question, tools=[OPENAI_BASH], max_tokens=100)
    hit, message = agent.anthropic(question, tools=[ANTHROPIC_BASH], max_tokens=100)
    hit_streamed, streamed = agent.anthropic_streamed(question, tools=[ANTHROPIC_BASH], max_tokens=100)

    assert (miss, hit, hit_streamed) == (MISS, HIT, HIT)
    (call,) = completion.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("Bash", ARGUMENTS)
    assert [(block.name, block.input) for block in message.content] == [("Bash", ARGUMENTS)]
    assert [(block.name, block.input) for block in streamed.content] == [("Bash", ARGUMENTS)]
    assert message.stop_reason == streamed.stop_reason == "tool_use"


def test_only_what_changes_the_answer_makes_another_question(scripted: Clients) -> None:
    question = "What is the capital of Portugal?"
    scripted.openai(question)
    assert scripted.anthropic(question, max_tokens=11)[0] == MISS
    assert scripted.anthropic(question, system="Answer in one word.")[0] == MISS
    assert scripted.anthropic(question, metadata={"user_id": "somebody"})[0] == HIT
