"""Completions and embeddings: bodies with one or several prompts, and what is answered."""

import json
import math
import struct
from base64 import b64decode, b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion as SdkCompletion
from openai.types import CreateEmbeddingResponse

from service.dialects.base import Reply
from service.dialects.openai_completions import OpenAICompletions
from service.dialects.openai_embeddings import OpenAIEmbeddings
from service.errors import BadRequest, EngineFailed
from service.events import ChoiceFinished, Done, Event, TextDelta
from service.generation import (
    Choice,
    Completion,
    GenerationRequest,
    RawPrompt,
    ResponseFormat,
    SamplingParams,
    Text,
    TokenLogprob,
    TopLogprob,
    Usage,
)

USAGE = Usage(prompt_tokens=3, completion_tokens=2)
LOGPROB = TokenLogprob("b", b"b", -0.5, (TopLogprob("b", b"b", -0.5), TopLogprob("c", b"c", -math.inf)))


def decode(dialect: Any = None, **fields: Any) -> Any:
    return (dialect or OpenAICompletions()).decode(json.dumps(fields).encode(), SamplingParams())


def reply(decoded: Any, **fields: Any) -> Reply:
    return Reply(
        **{"id": "0a", "model": "m", "created": 1_700_000_000, "dialect_state": decoded.dialect_state, **fields}
    )


PROMPTS: list[tuple[Any, list[RawPrompt]]] = [
    ("a", [RawPrompt(text="a")]),
    (["a", "b"], [RawPrompt(text="a"), RawPrompt(text="b")]),
    ([1, 2], [RawPrompt(tokens=(1, 2))]),
    ([[1], [2, 3]], [RawPrompt(tokens=(1,)), RawPrompt(tokens=(2, 3))]),
    (["a", [1]], [RawPrompt(text="a"), RawPrompt(tokens=(1,))]),
]


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS, ids=str)
def test_prompts(prompt: Any, expected: list[RawPrompt]) -> None:
    requests = decode(prompt=prompt).dialect_state.requests
    assert [request.raw_prompt for request in requests] == expected
    inputs = decode(OpenAIEmbeddings(), input=prompt).dialect_state.requests
    assert [request.raw_prompt for request in inputs] == [msgspec.structs.replace(p, embeds=True) for p in expected]


def test_fields() -> None:
    asked = decode(
        prompt="a", suffix="z", max_tokens=5, temperature=0.5, top_p=0.5, n=2, best_of=2, stop="x", logprobs=3, seed=1,
        user="u", guided_choice=["a"], novel=1,
    )  # fmt: skip
    assert asked.request == GenerationRequest(
        messages=(),
        raw_prompt=RawPrompt(text="a", suffix="z"),
        max_tokens=5,
        sampling=SamplingParams(temperature=0.5, top_p=0.5, seed=1),
        n=2,
        stop=("x",),
        logprobs=3,
        response_format=ResponseFormat(kind="grammar", grammar='start: "a"\n'),
        unread_fields={"novel": "1"},
    )
    assert decode(prompt="a").request.max_tokens == 16
    assert asked.unknown_fields == ("novel",)


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]] * 129}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt[1]"),
    ({"prompt": [1, -1]}, "prompt"),
    ({"prompt": [[2**31]]}, "prompt[0]"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": "a", "best_of": 3}, "best_of"),
    ({"prompt": "a", "echo": True, "logprobs": 0}, "echo"),
    ({"prompt": ["a"], "suffix": "b"}, "suffix"),
    ({"prompt": "a", "tools": [{}]}, "tools"),
    ({"prompt": "a", "n": 9}, "n"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[str(fields)[:50] for fields, _ in BAD])
def test_refusals_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(**fields)
    assert caught.value.param == param


def answer(*texts: str, logprobs: Any = None) -> Completion:
    choices = tuple(Choice(parts=(Text(text),), finish_reason="stop", logprobs=logprobs) for text in texts)
    return Completion(choices=choices, usage=USAGE)


def test_a_whole_completion() -> None:
    asked = decode(prompt=["a", "x"], echo=True, n=2)
    body = OpenAICompletions().encode(answer("b", "c", "y", "z"), reply(asked))
    completion = SdkCompletion.model_validate_json(body, strict=True)
    assert [(choice.index, choice.text) for choice in completion.choices] == [
        (0, "ab"),
        (1, "ac"),
        (2, "xy"),
        (3, "xz"),
    ]
    assert (completion.id, completion.usage.total_tokens) == ("cmpl-0a", 5)


def test_logprobs() -> None:
    body = json.loads(OpenAICompletions().encode(answer("b", logprobs=(LOGPROB, LOGPROB)), reply(decode(prompt="a"))))
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["b", "b"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"b": -0.5, "c": -9999.0}] * 2,
        "text_offset": [0, 1],
    }


def stream(events: list[Event], asked: Any, **fields: Any) -> list[dict[str, Any]]:
    encoder = OpenAICompletions().encode_stream(reply(asked, **fields))
    sent = encoder.start() + b"".join(encoder.feed(event) for event in events)
    *frames, done, rest = sent.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def test_a_stream() -> None:
    events: list[Event] = [
        TextDelta(0, "b", (LOGPROB,)), TextDelta(1, "y"), TextDelta(0, "c", (LOGPROB,)), TextDelta(0, ""),
        ChoiceFinished(0, "stop"), ChoiceFinished(1, "length"), Done(USAGE),
    ]  # fmt: skip
    *chunks, last = stream(events, decode(prompt=["a", "x"], echo=True), include_usage=True)
    texts = [(chunk["choices"][0]["index"], chunk["choices"][0]["text"]) for chunk in chunks]
    assert texts == [(0, "a"), (0, "b"), (1, "x"), (1, "y"), (0, "c"), (0, ""), (1, "")]
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in (chunks[1], chunks[4])] == [[0], [1]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == ["stop", "length"]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)
    assert stream(events, decode(prompt="a"))[-1]["usage"] is None


def test_a_stream_that_fails_says_so() -> None:
    encoder = OpenAICompletions().encode_stream(reply(decode(prompt="a")))
    assert encoder.fail(EngineFailed("It broke.")).endswith(b"data: [DONE]\n\n")
    assert b"It broke." in encoder.fail(EngineFailed("It broke."))


def vector(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, [0.6, 0.0, 0.8]), ({"dimensions": 3}, [0.6, 0.0, 0.8]), ({"dimensions": 2}, [1.0, 0.0])],
)
def test_embeddings(fields: dict[str, Any], expected: list[float]) -> None:
    for encoding in ("float", "base64"):
        asked = decode(OpenAIEmbeddings(), input=["a", "b"], encoding_format=encoding, **fields)
        body = OpenAIEmbeddings().encode(answer(vector(0.6, 0, 0.8), vector(0, 0, 0)), reply(asked))
        first, second = json.loads(body)["data"]
        if encoding == "base64":
            numbers = struct.unpack(f"<{len(expected)}f", b64decode(first["embedding"]))
        else:
            CreateEmbeddingResponse.model_validate_json(body, strict=True)
            numbers = first["embedding"]
            assert second["embedding"] == [0.0] * len(expected)
        assert numbers == pytest.approx(expected)


def test_more_dimensions_than_there_are_is_refused() -> None:
    asked = decode(OpenAIEmbeddings(), input="a", dimensions=4)
    with pytest.raises(BadRequest, match="have 3, found 4"):
        OpenAIEmbeddings().encode(answer(vector(1, 0, 0)), reply(asked))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@given(st.dictionaries(st.sampled_from(["prompt", "input", "n", "echo", "logprobs", "stop", "suffix"]), VALUES))
def test_whatever_is_sent_is_decoded_or_refused(fields: dict[str, Any]) -> None:
    for dialect in (OpenAICompletions(), OpenAIEmbeddings()):
        try:
            decode(dialect, **fields)
        except BadRequest as refused:
            dialect.encode_error(refused, "r")
