"""Requests with one key have one prompt and one grammar, whatever a client varies, in both dialects."""

import random
from functools import cache
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import event, given

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.openai_chat import OpenAIChat
from service.errors import ServiceError
from service.executor.prompt.renderer import PromptRenderer
from service.generation import GenerationRequest, SamplingParams
from service.normalize import normalize
from service.response_cache.key import RequestKeys, follows_schemas
from service.tool_calling.grammar import answer_grammar, is_constrained
from tests.examples import examples
from tests.response_cache.prompts import byte_renderer

DIALECTS = (OpenAIChat(), AnthropicMessages())

words = st.sampled_from(["city", "days", "reasoning", "answer"])
scalars = st.sampled_from([{"type": "string"}, {"type": "integer"}, {"type": "string", "enum": ["b", "a"]}])


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(words, values, max_size=3).map(
        lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
    )


schemas = objects(scalars | objects(scalars))
texts = st.sampled_from(["hello", "hello ", "a b"])
choices = st.sampled_from(["auto", "none", "required", "f"])


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that both dialects can express."""
    return {
        "text": draw(texts),
        "system": draw(st.sampled_from(["", "Be brief."])),
        "tools": [
            {"name": name, "schema": draw(schemas), "strict": draw(st.booleans())}
            for name in draw(st.sampled_from([(), ("f",), ("f", "g")]))
        ],
        "choice": draw(choices),
        "schema": draw(st.none() | schemas),
        "template": draw(st.sampled_from([{}, {"effort": {"b": 1, "a": 2}}])),
        "stop": draw(st.sampled_from([[], ["x", "y"], ["y", "x"]])),
        "arguments": draw(st.sampled_from([None, '{"a": 1}', '{"a":1}'])),
        "call": draw(st.sampled_from(["call_1", "toolu_2"])),
    }


def openai_body(asked: dict[str, Any]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked["text"]}]
    if asked["system"]:
        messages.insert(0, {"role": "system", "content": asked["system"]})
    if asked["arguments"]:
        function = {"name": "f", "arguments": asked["arguments"]}
        call = {"id": asked["call"], "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": asked["call"], "content": "done"},
        ]
    body = {"messages": messages, "max_tokens": 9, "stop": asked["stop"], "chat_template_kwargs": asked["template"]}
    if asked["tools"]:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool["name"], "parameters": tool["schema"], "strict": tool["strict"]},
            }
            for tool in asked["tools"]
        ]
        named = {"type": "function", "function": {"name": "f"}}
        body["tool_choice"] = named if asked["choice"] == "f" else asked["choice"]
    if asked["schema"] is not None:
        schema = {"name": "answer", "schema": asked["schema"]}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def anthropic_body(asked: dict[str, Any]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked["text"]}]
    if asked["arguments"]:
        use = {"type": "tool_use", "id": asked["call"], "name": "f", "input": msgspec.json.decode(asked["arguments"])}
        result = {"type": "tool_result", "tool_use_id": asked["call"], "content": "done"}
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    body = {"model": "m", "messages": messages, "max_tokens": 9, "stop_sequences": asked["stop"]}
    if asked["system"]:
        body["system"] = asked["system"]
    if asked["tools"]:
        body["tools"] = [
            {"name": tool["name"], "input_schema": tool["schema"], "strict": tool["strict"]} for tool in asked["tools"]
        ]
        kinds = {"f": {"type": "tool", "name": "f"}, "required": {"type": "any"}}
        body["tool_choice"] = kinds.get(asked["choice"], {"type": asked["choice"]})
    return body


def shuffled(value: Any, order: random.Random) -> Any:
    """The same value with the keys of all dictionaries in another order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@st.composite
def pairs(draw: st.DrawFn) -> tuple[GenerationRequest, GenerationRequest]:
    """Two requests that are nearly the same question, each in either dialect."""
    asked = draw(questions())
    other = draw(st.just(asked) | questions().map(lambda more: asked | {draw(st.sampled_from(sorted(asked))): more}))
    if other is not asked:
        changed = next(name for name in asked if other[name] is not asked[name])
        other[changed] = other[changed][changed]
    decoded = []
    for question in (asked, other):
        dialect = draw(st.sampled_from(DIALECTS))
        body = openai_body(question) if isinstance(dialect, OpenAIChat) else anthropic_body(question)
        body = shuffled(body, draw(st.randoms(use_true_random=False))) if draw(st.booleans()) else body
        body |= draw(st.sampled_from([{}, {"stream": True}]))
        decoded.append(normalize(dialect.decode(msgspec.json.encode(body), SamplingParams()).request))
    return decoded[0], decoded[1]


@cache
def renderer() -> PromptRenderer:
    return byte_renderer()


def grammar(request: GenerationRequest) -> str | None:
    try:
        return answer_grammar(request, "hermes", lambda text: [text], None) if is_constrained(request) else None
    except ValueError as exc:
        return f"refused: {exc}"


@examples(300)
@given(pairs())
def test_one_key_is_one_prompt_and_one_grammar(pair: tuple[GenerationRequest, GenerationRequest]) -> None:
    keys = [RequestKeys().key("m", request) for request in pair]
    event("same key" if keys[0] == keys[1] else "another key")
    if keys[0] == keys[1]:
        assert renderer().render(pair[0]).tokens == renderer().render(pair[1]).tokens
        assert grammar(pair[0]) == grammar(pair[1])


@examples(100)
@given(pairs())
def test_the_order_of_schemas_is_kept_if_there_is_a_grammar(pair: tuple[GenerationRequest, GenerationRequest]) -> None:
    for request in pair:
        strict = any(tool.strict for tool in request.tools)
        assert follows_schemas(request, strict=strict) == is_constrained(request)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_both_bodies_of_a_question_are_decoded(dialect: OpenAIChat | AnthropicMessages) -> None:
    asked = {"text": "a", "system": "b", "choice": "f", "schema": None, "template": {}, "stop": [], "call": "c"}
    tool = {"name": "f", "schema": {"type": "object", "properties": {}}, "strict": False}
    question = asked | {"tools": [tool], "arguments": "{}"}
    body = openai_body(question) if isinstance(dialect, OpenAIChat) else anthropic_body(question)
    try:
        request = dialect.decode(msgspec.json.encode(body), SamplingParams()).request
    except ServiceError as exc:
        pytest.fail(f"the test's own body is refused: {exc}")
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
