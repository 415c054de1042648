"""Every field that changes the answer changes the key, and nothing else does: each by its name."""

import random
from typing import Any, get_args

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given, settings

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.openai_chat import OpenAIChat
from service.generation import (
    GenerationRequest,
    Message,
    RawPrompt,
    ResponseFormat,
    SamplingParams,
    Tool,
    ToolCall,
    ToolChoice,
)
from service.normalize import normalize
from service.response_cache.key import REMEMBERED_TOOL_SETS, RequestKeys

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"]}

REQUEST = GenerationRequest(
    messages=(
        Message(role="system", content="You are terse."),
        Message(role="user", content="What is the weather?"),
        Message(
            role="assistant",
            content="I shall look.",
            reasoning="Two cities.",
            tool_calls=(
                ToolCall("call_a", "weather", '{"city": "Paris"}'),
                ToolCall("call_b", "weather", '{"city": "Rome"}'),
            ),
        ),
        Message(role="tool", content="rain", tool_call_id="call_a"),
        Message(role="tool", content="sun", tool_call_id="call_b"),
    ),
    tools=(
        Tool(name="weather", description="The weather of a city.", parameters=SCHEMA),
        Tool(name="time", description="The time."),
    ),
    response_format=ResponseFormat(kind="json_schema", schema=SCHEMA, name="answer"),
    template_arguments={"effort": "high", "nested": {"a": 1, "b": 2}},
    raw_prompt=RawPrompt(text="a"),
)

CHANGES: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "GenerationRequest.messages": (("messages",), [{"role": "user", "content": "What is the weather?"}]),
    "GenerationRequest.tools": (("tools",), []),
    "GenerationRequest.tool_choice": (("tool_choice",), {"mode": "required", "name": ""}),
    "GenerationRequest.parallel_tool_calls": (("parallel_tool_calls",), False),
    "GenerationRequest.response_format": (("response_format",), None),
    "GenerationRequest.sampling": (("sampling",), {"temperature": 0.5, "top_p": 0.5}),
    "GenerationRequest.max_tokens": (("max_tokens",), 0),
    "GenerationRequest.stop": (("stop",), ["\n"]),
    "GenerationRequest.n": (("n",), 2),
    "GenerationRequest.logprobs": (("logprobs",), 0),
    "GenerationRequest.thinking": (("thinking",), "off"),
    "GenerationRequest.thinking_budget": (("thinking_budget",), 1024),
    "GenerationRequest.end_loops": (("end_loops",), True),
    "GenerationRequest.answer_after_reasoning": (("answer_after_reasoning",), False),
    "GenerationRequest.template_arguments": (("template_arguments", "effort"), "low"),
    "GenerationRequest.caller": (("caller",), "digest"),
    "GenerationRequest.unread_fields": (("unread_fields",), {"novel": "1"}),
    "GenerationRequest.no_store": (("no_store",), True),
    "GenerationRequest.raw_prompt": (("raw_prompt",), None),
    "RawPrompt.text": (("raw_prompt", "text"), "b"),
    "RawPrompt.tokens": (("raw_prompt", "tokens"), [1]),
    "RawPrompt.suffix": (("raw_prompt", "suffix"), ""),
    "RawPrompt.embeds": (("raw_prompt", "embeds"), True),
    "Message.role": (("messages", 1, "role"), "system"),
    "Message.content": (("messages", 1, "content"), "What is the weather? "),
    "Message.reasoning": (("messages", 2, "reasoning"), ""),
    "Message.tool_calls": (("messages", 2, "tool_calls"), []),
    "Message.tool_call_id": (("messages", 3, "tool_call_id"), "of no call"),
    "Message.is_error": (("messages", 3, "is_error"), True),
    "ToolCall.name": (("messages", 2, "tool_calls", 0, "name"), "time"),
    "ToolCall.arguments": (("messages", 2, "tool_calls", 0, "arguments"), '{"city": "Nice"}'),
    "ToolCall.id": (("messages", 2, "tool_calls", 1, "id"), "of another place"),
    "Tool.name": (("tools", 1, "name"), "clock"),
    "Tool.description": (("tools", 1, "description"), "The date."),
    "Tool.parameters": (("tools", 0, "parameters", "required"), []),
    "Tool.strict": (("tools", 0, "strict"), True),
    "Tool.grammar": (("tools", 1, "grammar"), 'start: "a"'),
    "Tool.deferred": (("tools", 1, "deferred"), True),
    "ToolChoice.mode": (("tool_choice", "mode"), "none"),
    "ToolChoice.name": (("tool_choice", "name"), "weather"),
    "ResponseFormat.kind": (("response_format", "kind"), "json_object"),
    "ResponseFormat.schema": (("response_format", "schema"), None),
    "ResponseFormat.grammar": (("response_format", "grammar"), 'start: "a"'),
    "ResponseFormat.name": (("response_format", "name"), "other"),
    "ResponseFormat.strict": (("response_format", "strict"), True),
    "SamplingParams.temperature": (("sampling", "temperature"), 0.7),
    "SamplingParams.top_p": (("sampling", "top_p"), 0.9),
    "SamplingParams.top_k": (("sampling", "top_k"), 40),
    "SamplingParams.min_p": (("sampling", "min_p"), 0.05),
    "SamplingParams.repetition_penalty": (("sampling", "repetition_penalty"), 1.1),
    "SamplingParams.presence_penalty": (("sampling", "presence_penalty"), 0.5),
    "SamplingParams.frequency_penalty": (("sampling", "frequency_penalty"), 0.5),
    "SamplingParams.logit_bias": (("sampling", "logit_bias"), [[5, -100.0]]),
    "SamplingParams.seed": (("sampling", "seed"), 0),
}


def key_of(request: GenerationRequest) -> str:
    return RequestKeys().key("model-1", normalize(request))


def changed(request: GenerationRequest, path: tuple[str | int, ...], value: Any) -> GenerationRequest:
    """The request with one thing in it replaced."""
    plain = msgspec.to_builtins(request)
    place = plain
    for step in path[:-1]:
        if isinstance(place[step], tuple):
            place[step] = list(place[step])
        place = place[step]
    place[path[-1]] = value
    return msgspec.convert(plain, GenerationRequest)


def structs_within(kind: Any, found: set[type[msgspec.Struct]]) -> set[type[msgspec.Struct]]:
    """Every Struct that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
        found.add(kind)
        for field in msgspec.structs.fields(kind):
            structs_within(field.type, found)
    for argument in get_args(kind):
        structs_within(argument, found)
    return found


def test_every_field_has_its_case() -> None:
    """A field that is added to the request fails here until it is said how it changes the key."""
    fields = {
        f"{struct.__name__}.{field.name}"
        for struct in structs_within(GenerationRequest, set())
        for field in msgspec.structs.fields(struct)
    }
    assert fields == set(CHANGES)


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_key(field: str) -> None:
    other = changed(REQUEST, *CHANGES[field])
    assert other != REQUEST
    assert key_of(other) != key_of(REQUEST)


def test_no_two_of_these_changes_have_the_same_key() -> None:
    keys = {key_of(changed(REQUEST, *change)) for change in CHANGES.values()}
    assert len(keys | {key_of(REQUEST)}) == len(CHANGES) + 1


def test_the_model_changes_the_key() -> None:
    assert RequestKeys().key("model-1", REQUEST) != RequestKeys().key("model-2", REQUEST)


def test_what_is_remembered_of_tools_changes_no_key() -> None:
    """More sets than are remembered, some of them equal and none the same object, asked for in any order."""
    keys = RequestKeys()
    sets = [(Tool(name=f"tool{index % 20}"),) for index in range(REMEMBERED_TOOL_SETS * 5)]
    for order in (sets, sets[::-1], sets):
        for tools in order:
            request = msgspec.structs.replace(REQUEST, tools=tools)
            assert keys.key("model-1", request) == RequestKeys().key("model-1", request)


def test_the_last_sets_of_tools_are_remembered_and_no_more() -> None:
    keys = RequestKeys()
    sets = [(Tool(name=f"tool{index}"),) for index in range(REMEMBERED_TOOL_SETS * 2)]
    for tools in (*sets, sets[-REMEMBERED_TOOL_SETS]):
        keys.key("model-1", msgspec.structs.replace(REQUEST, tools=tools))
    held = [made.tools for made in keys.remembered]
    assert held == [*sets[-REMEMBERED_TOOL_SETS + 1 :], sets[-REMEMBERED_TOOL_SETS]]
    before = keys.remembered
    keys.key("model-1", msgspec.structs.replace(REQUEST, tools=sets[-1]))
    assert [made is again for made, again in zip(before[-2:-1], keys.remembered[-1:], strict=True)] == [True]


def test_tools_that_are_gone_are_not_taken_for_those_that_stand_in_their_place() -> None:
    """What a request leaves free in memory, the next one's tools are made of."""
    keys = RequestKeys()
    made = {keys.key("model-1", msgspec.structs.replace(REQUEST, tools=(Tool(name=f"t{n}"),))) for n in range(50)}
    assert len(made) == 50


def test_a_key_is_a_sha256_and_stays() -> None:
    key = key_of(REQUEST)
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")
    assert key == key_of(msgspec.convert(msgspec.to_builtins(REQUEST), GenerationRequest))


def shuffled(value: Any, order: random.Random) -> Any:
    """The same value with the keys of all dictionaries in another order."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list | tuple) else value


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_is_no_difference(order: random.Random) -> None:
    free = msgspec.structs.replace(REQUEST, response_format=None)
    other = msgspec.convert(shuffled(msgspec.to_builtins(free), order), GenerationRequest)
    assert key_of(other) == key_of(free)


ORDERED = {"type": "object", "properties": {"reasoning": {"type": "string"}, "answer": {"type": "string"}}}
TURNED = {"type": "object", "properties": {"answer": {"type": "string"}, "reasoning": {"type": "string"}}}


@pytest.mark.parametrize(
    ("fields", "matters"),
    [
        ({}, False),
        ({"tool_choice": ToolChoice("none")}, False),
        ({"tool_choice": ToolChoice("required")}, True),
        ({"tool_choice": ToolChoice("required", "f")}, True),
        ({"response_format": ResponseFormat(kind="json_object")}, True),
    ],
    ids=["auto", "none", "required", "named", "a document or a call"],
)
def test_the_order_of_a_tools_properties_matters_if_an_answer_must_follow_it(
    fields: dict[str, Any], matters: bool
) -> None:
    keys = RequestKeys()
    free = msgspec.structs.replace(REQUEST, **{"response_format": None, **fields})
    made = {
        keys.key("m", msgspec.structs.replace(free, tools=(Tool(name="f", parameters=schema),)))
        for schema in (ORDERED, TURNED)
    }
    assert len(made) == 1 + matters
    strict = (Tool(name="f", parameters=ORDERED, strict=True), Tool(name="f", parameters=TURNED, strict=True))
    made = {keys.key("m", msgspec.structs.replace(free, tools=(tool,))) for tool in strict}
    assert len(made) == (1 if fields.get("tool_choice") == ToolChoice("none") else 2)


@pytest.mark.parametrize("more", [{}, {"maxLength": 2**64}], ids=["", "beside a long integer"])
def test_the_order_of_properties_in_a_response_format_matters(more: dict[str, Any]) -> None:
    schemas = (ORDERED | more, TURNED | more)
    assert len({key_of(changed(REQUEST, ("response_format", "schema"), schema)) for schema in schemas}) == 2


def test_the_order_of_everything_else_is_one() -> None:
    for field in ("messages", "tools"):
        turned = tuple(reversed(getattr(REQUEST, field)))
        assert key_of(msgspec.structs.replace(REQUEST, **{field: turned})) != key_of(REQUEST)
    schema = ("tools", 0, "parameters", "properties", "city", "enum")
    assert key_of(changed(REQUEST, schema, ["Rome", "Paris"])) != key_of(REQUEST)


def renamed(ids: dict[str, str]) -> GenerationRequest:
    """The same conversation with other ids of its tool calls."""
    text = msgspec.json.encode(REQUEST).decode()
    for old, new in ids.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    return msgspec.json.decode(text, type=GenerationRequest)


def test_the_text_of_tool_call_ids_is_no_difference() -> None:
    assert key_of(renamed({"call_a": "toolu_01", "call_b": "toolu_02"})) == key_of(REQUEST)


def test_which_call_a_result_answers_is_one() -> None:
    crossed = changed(
        changed(REQUEST, ("messages", 3, "tool_call_id"), "call_b"), ("messages", 4, "tool_call_id"), "call_a"
    )
    assert key_of(crossed) != key_of(REQUEST)


def test_claude_codes_attribution_line_is_no_difference() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.197.1c0; cc_entrypoint=cli;\n"
    system = ("messages", 0, "content")
    assert key_of(changed(REQUEST, system, line + "You are terse.")) == key_of(REQUEST)


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=2), st.floats(min_value=0, max_value=2))
def test_temperatures_are_told_apart(left: float, right: float) -> None:
    keys = [key_of(changed(REQUEST, ("sampling", "temperature"), value)) for value in (left, right)]
    assert (keys[0] == keys[1]) is (left == right)


INTEGERS = st.integers() | st.integers(min_value=-(10**30), max_value=10**30)


@settings(deadline=None)
@given(INTEGERS, INTEGERS)
@example(2**64, 2**64 + 1)
def test_integers_of_any_size_are_told_apart(left: int, right: int) -> None:
    """Schemas may bound a number by more than the 64 bits of msgpack's."""
    for path in (("tools", 0, "parameters", "maximum"), ("template_arguments", "nested", "a")):
        keys = [key_of(changed(REQUEST, path, value)) for value in (left, right)]
        assert (keys[0] == keys[1]) is (left == right)


def test_the_order_of_keys_is_no_difference_beside_a_long_integer() -> None:
    free = msgspec.structs.replace(REQUEST, response_format=None)
    nested = {"maximum": 2**64, "minimum": 2}
    for path in (("template_arguments", "nested"), ("tools", 0, "parameters")):
        keys = [key_of(changed(free, path, dict(items))) for items in (nested.items(), reversed(nested.items()))]
        assert keys[0] == keys[1]


DEFAULTS = SamplingParams(temperature=0.6, top_p=0.95)

OPENAI: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "hello"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
}
ANTHROPIC: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello"}],
    "system": [{"type": "text", "text": "You are terse."}],
}

# What a client may send beside the question. Not one of these may cost a hit.
MEANINGLESS = [
    (OpenAIChat(), OPENAI, {"stream": True}),
    (OpenAIChat(), OPENAI, {"stream": True, "stream_options": {"include_usage": True}}),
    (OpenAIChat(), OPENAI, {"user": "somebody"}),
    (OpenAIChat(), OPENAI, {"metadata": {"a": "b"}}),
    (OpenAIChat(), OPENAI, {"model": "current-model"}),
    (OpenAIChat(), OPENAI, {"store": False}),
    (OpenAIChat(), OPENAI, {"service_tier": "auto"}),
    (OpenAIChat(), OPENAI, {"temperature": 0.6}),
    (OpenAIChat(), OPENAI, {"n": 1}),
    (OpenAIChat(), OPENAI, {"presence_penalty": -0.0}),
    (OpenAIChat(), OPENAI, {"frequency_penalty": -0.0}),
    (OpenAIChat(), OPENAI, {"min_p": -0.0}),
    (OpenAIChat(), OPENAI, {"logit_bias": {}}),
    (OpenAIChat(), OPENAI, {"logit_bias": {"5": 0, "7": -0.0}}),
    (OpenAIChat(), OPENAI | {"temperature": 0}, {"temperature": -0.0}),
    (OpenAIChat(), OPENAI | {"logit_bias": {"5": 1}}, {"logit_bias": {"7": 0, "5": 1}}),
    (OpenAIChat(), OPENAI | {"stop": ["a", "b"]}, {"stop": ["b", "a", "b"]}),
    (AnthropicMessages(), ANTHROPIC, {"stream": True}),
    (AnthropicMessages(), ANTHROPIC, {"metadata": {"user_id": "session"}}),
    (AnthropicMessages(), ANTHROPIC, {"model": "claude-haiku-4-5"}),
    (AnthropicMessages(), ANTHROPIC, {"temperature": 0.6}),
    (AnthropicMessages(), ANTHROPIC | {"temperature": 0}, {"temperature": -0.0}),
    (AnthropicMessages(), ANTHROPIC | {"stop_sequences": ["a", "b"]}, {"stop_sequences": ["b", "a"]}),
    (
        AnthropicMessages(),
        ANTHROPIC,
        {"system": [{"type": "text", "text": "You are terse.", "cache_control": {"type": "ephemeral"}}]},
    ),
    (AnthropicMessages(), ANTHROPIC, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}),
]


def wire_key(dialect: OpenAIChat | AnthropicMessages, body: dict[str, Any], indent: int = 0) -> str:
    encoded = msgspec.json.format(msgspec.json.encode(body), indent=indent)
    return key_of(dialect.decode(encoded, DEFAULTS).request)


@pytest.mark.parametrize(
    ("dialect", "body", "change"), MEANINGLESS, ids=lambda value: getattr(value, "name", None) or str(value)[:60]
)
def test_what_carries_no_meaning(
    dialect: OpenAIChat | AnthropicMessages, body: dict[str, Any], change: dict[str, Any]
) -> None:
    assert wire_key(dialect, body | change) == wire_key(dialect, body)


def test_white_space_is_no_difference() -> None:
    assert wire_key(OpenAIChat(), OPENAI, indent=4) == wire_key(OpenAIChat(), OPENAI)


def test_an_omitted_temperature_is_the_default_and_not_0() -> None:
    assert wire_key(OpenAIChat(), OPENAI | {"temperature": 0}) != wire_key(OpenAIChat(), OPENAI)


def test_both_dialects_ask_the_same_question() -> None:
    openai = {
        "messages": [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "hello"}],
        "max_tokens": 100,
    }
    assert wire_key(OpenAIChat(), openai) == wire_key(AnthropicMessages(), ANTHROPIC)
