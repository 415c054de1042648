"""The official `openai` client's completions and embeddings, against a server process that repeats the prompt."""

from collections.abc import Iterator

import openai
import pytest

from tests.clients.clients import openai_client
from tests.server_process import ServerProcess

MODEL = "default"


@pytest.fixture
def client(scripted_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai_client(scripted_server) as client:
        yield client


def test_create(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="gpt-3.5-turbo-instruct", prompt=["one two", "three"], echo=True, n=2)

    assert [choice.text for choice in completion.choices] == ["one twoone two"] * 2 + ["threethree"] * 2
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 9


def test_a_stream_says_what_create_says(client: openai.OpenAI) -> None:
    stream = client.completions.create(model=MODEL, prompt="one two three", max_tokens=2, logprobs=1, stream=True)
    choices = [chunk.choices[0] for chunk in stream]

    assert "".join(choice.text for choice in choices) == "one two "
    assert choices[-1].finish_reason == "length"
    assert choices[0].logprobs is not None
    assert choices[0].logprobs.tokens == ["one "]


def test_embeddings(client: openai.OpenAI) -> None:
    """The client asks for base64 by itself and decodes it."""
    response = client.embeddings.create(model="text-embedding-3-small", input=["abba", "cab"], dimensions=4)

    assert [item.embedding for item in response.data] == [
        pytest.approx([0.7071, 0.7071, 0, 0], abs=1e-4),
        pytest.approx([0.5774, 0.5774, 0.5774, 0], abs=1e-4),
    ]
    assert response.usage.prompt_tokens == 2


def test_errors_have_their_class(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="best_of"):
        client.completions.create(model=MODEL, prompt="a", best_of=3)
    with pytest.raises(openai.BadRequestError, match="have 8, found 9"):
        client.embeddings.create(model=MODEL, input="a", dimensions=9)
