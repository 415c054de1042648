"""Request bodies of the chat dialect, good and bad."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dialects.base import ClientRequest
from service.dialects.openai_chat import OpenAIChat
from service.errors import BadRequest
from service.generation import (
    GenerationRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Tool,
    ToolCall,
    ToolChoice,
)

GREEDY = SamplingParams()
DEFAULTS = SamplingParams(temperature=0.7, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.1)
HI = {"role": "user", "content": "hi"}
NO_PARAMETERS = {"type": "object", "properties": {}}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER_TOOL = {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": WEATHER}}
CLOCK_TOOL = {"type": "function", "function": {"name": "clock"}}
WEATHER_CANONICAL = Tool(name="weather", description="Now.", parameters=WEATHER)
CLOCK_CANONICAL = Tool(name="clock", parameters=NO_PARAMETERS)
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":  "Bern"}'}}


def decode(fields: dict[str, Any], defaults: SamplingParams = GREEDY) -> ClientRequest:
    return OpenAIChat().decode(json.dumps({"messages": [HI], **fields}).encode(), defaults)


def asked(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"messages": (Message(role="user", content="hi"),), **fields})


def grammar(text: str) -> ResponseFormat:
    return ResponseFormat(kind="grammar", grammar=text)


SCHEMA_FORM = ResponseFormat(kind="json_schema", schema=WEATHER, strict=True)

MESSAGES: list[tuple[list[dict[str, Any]], list[Message]]] = [
    (
        [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, {**HI, "name": "eve"}],
        [
            Message(role="system", content="s"),
            Message(role="system", content="d"),
            Message(role="user", content="hi"),
        ],
    ),
    (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [Message(role="user", content="a\nb")],
    ),
    ([{"role": "user", "content": []}], [Message(role="user")]),
    ([{"role": "assistant", "content": None}], [Message(role="assistant")]),
    (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "reasoning_content": "hm"}],
        [Message(role="assistant", content="no", reasoning="hm")],
    ),
    (
        [{"role": "assistant", "content": "a", "reasoning": "hm"}],
        [Message(role="assistant", content="a", reasoning="hm")],
    ),
    (
        [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "sun", "tool_call_id": "c1"}],
        [
            Message(role="assistant", tool_calls=(ToolCall("c1", "weather", '{"city":  "Bern"}'),)),
            Message(role="tool", content="sun", tool_call_id="c1"),
        ],
    ),
    (
        [{"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": {"a": [1, "é"]}}}]}],
        [Message(role="assistant", tool_calls=(ToolCall("x", "f", '{"a":[1,"é"]}'),))],
    ),
    (
        [{"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": ""}}]}],
        [Message(role="assistant", tool_calls=(ToolCall("x", "f", "{}"),))],
    ),
    (
        [
            HI,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        [
            Message(role="user", content="hi"),
            Message(role="assistant", tool_calls=(ToolCall("call_0", "f", "{}"),)),
            Message(role="tool", content="42", tool_call_id="call_0"),
        ],
    ),
]


@pytest.mark.parametrize(("sent", "expected"), MESSAGES)
def test_messages(sent: list[dict[str, Any]], expected: list[Message]) -> None:
    assert decode({"messages": sent}).request.messages == tuple(expected)


FIELDS: list[tuple[dict[str, Any], GenerationRequest]] = [
    ({}, asked()),
    ({"user": "u", "metadata": {"a": 1}, "store": False, "service_tier": "auto", "prediction": {"type": "x"}}, asked()),
    ({"safety_identifier": "s", "prompt_cache_key": "k", "modalities": ["text"]}, asked()),
    ({"verbosity": "low"}, asked(unread_fields={"verbosity": '"low"'})),
    ({"never_heard_of": {"b": [1], "a": None}}, asked(unread_fields={"never_heard_of": '{"a":null,"b":[1]}'})),
    ({"never_heard_of": None}, asked()),
    ({"messages": [{**HI, "mood": "good"}]}, asked(unread_fields={"messages[0].mood": '"good"'})),
    ({"messages": [{**HI, "id": "m1", "name": "eve", "cache_control": {}}]}, asked()),
    (dict.fromkeys(["temperature", "tools", "stop", "n", "seed", "logprobs", "response_format", "functions"]), asked()),
    ({"temperature": 2, "top_p": 0.5}, asked(sampling=SamplingParams(temperature=2.0, top_p=0.5))),
    ({"temperature": 1, "top_p": 0}, asked(sampling=SamplingParams(temperature=0.0, top_p=1.0))),
    ({"top_k": 5, "min_p": 0.2}, asked(sampling=SamplingParams(top_k=5, min_p=0.2))),
    ({"top_k": -1}, asked(sampling=SamplingParams(top_k=0))),
    (
        {"presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 1.5},
        asked(sampling=SamplingParams(presence_penalty=-2.0, frequency_penalty=2.0, repetition_penalty=1.5)),
    ),
    ({"logit_bias": {"50": -100, "7": 1}}, asked(sampling=SamplingParams(logit_bias=((7, 1.0), (50, -100.0))))),
    ({"seed": -(2**63)}, asked(sampling=SamplingParams(seed=-(2**63)))),
    ({"max_tokens": 5}, asked(max_tokens=5)),
    ({"max_tokens": 5, "max_completion_tokens": 0}, asked(max_tokens=0)),
    ({"stop": "\n"}, asked(stop=("\n",))),
    ({"stop": ["a", "b", "a"]}, asked(stop=("a", "b"))),
    ({"stop": []}, asked()),
    ({"n": 8}, asked(n=8)),
    ({"logprobs": True}, asked(logprobs=0)),
    ({"logprobs": True, "top_logprobs": 20}, asked(logprobs=20)),
    ({"logprobs": False, "top_logprobs": 0}, asked()),
    ({"response_format": {"type": "text"}}, asked()),
    ({"response_format": {"type": "json_object"}}, asked(response_format=ResponseFormat(kind="json_object"))),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER, "strict": True}}},
        asked(response_format=ResponseFormat(kind="json_schema", schema=WEATHER, name="w", strict=True)),
    ),
    ({"response_format": {"type": "json_object", "schema": WEATHER}}, asked(response_format=SCHEMA_FORM)),
    ({"json_schema": WEATHER}, asked(response_format=SCHEMA_FORM)),
    ({"guided_json": WEATHER}, asked(response_format=SCHEMA_FORM)),
    ({"guided_json": json.dumps(WEATHER)}, asked(response_format=SCHEMA_FORM)),
    ({"structured_outputs": {"json": WEATHER}}, asked(response_format=SCHEMA_FORM)),
    ({"structured_outputs": {"json_object": True}}, asked(response_format=ResponseFormat(kind="json_object"))),
    ({"grammar": 'root ::= "a"'}, asked(response_format=grammar('root ::= "a"'))),
    ({"response_format": {"type": "grammar", "grammar": 'start: "a"'}}, asked(response_format=grammar('start: "a"'))),
    ({"guided_grammar": 'start: "a"'}, asked(response_format=grammar('start: "a"'))),
    ({"guided_regex": r"a/b\/\d"}, asked(response_format=grammar("start: /a\\/b\\/\\d/\n"))),
    ({"guided_choice": ["yes", '"no"']}, asked(response_format=grammar('start: "yes" | "\\"no\\""\n'))),
    ({"tools": [WEATHER_TOOL, CLOCK_TOOL]}, asked(tools=(WEATHER_CANONICAL, CLOCK_CANONICAL))),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"properties": {}}}}]},
        asked(tools=(Tool(name="f", strict=True, parameters=NO_PARAMETERS),)),
    ),
    ({"tools": [], "tool_choice": "none", "parallel_tool_calls": False}, asked()),
    (
        {"tools": [CLOCK_TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        asked(tools=(CLOCK_CANONICAL,), tool_choice=ToolChoice("required"), parallel_tool_calls=False),
    ),
    (
        {"tools": [CLOCK_TOOL], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
        asked(tools=(CLOCK_CANONICAL,), tool_choice=ToolChoice("required", "clock")),
    ),
    (
        {
            "tools": [WEATHER_TOOL, CLOCK_TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [CLOCK_TOOL]},
            },
        },
        asked(tools=(CLOCK_CANONICAL,), tool_choice=ToolChoice("required")),
    ),
    (
        {"functions": [{"name": "clock"}], "function_call": {"name": "clock"}},
        asked(tools=(CLOCK_CANONICAL,), tool_choice=ToolChoice("required", "clock"), parallel_tool_calls=False),
    ),
    (
        {"functions": [{"name": "clock"}], "function_call": "none"},
        asked(tools=(CLOCK_CANONICAL,), tool_choice=ToolChoice("none"), parallel_tool_calls=False),
    ),
    ({"reasoning_effort": "none"}, asked(thinking="off")),
    ({"reasoning_effort": "low"}, asked(template_arguments={"reasoning_effort": "low"})),
    ({"thinking": {"type": "disabled"}}, asked(thinking="off")),
    ({"thinking": {"type": "enabled", "budget_tokens": 5}}, asked(thinking="on", thinking_budget=5)),
    (
        {"chat_template_kwargs": {"enable_thinking": False}},
        asked(template_arguments={"enable_thinking": False}),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), FIELDS, ids=[str(fields)[:60] for fields, _ in FIELDS])
def test_fields(fields: dict[str, Any], expected: GenerationRequest) -> None:
    assert decode(fields).request == expected


def test_delivery_is_no_part_of_the_question() -> None:
    fields = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert decode(fields) == ClientRequest(request=asked(), model="m", stream=True, include_usage=True)
    assert decode({"model": None, "stream": None, "stream_options": None}) == ClientRequest(request=asked())


def test_what_the_client_leaves_out_is_the_default() -> None:
    assert decode({}, DEFAULTS).request.sampling == DEFAULTS
    own = decode({"temperature": 0, "top_k": -1, "min_p": 0, "repetition_penalty": 1}, DEFAULTS).request.sampling
    assert own == SamplingParams(temperature=0.0, top_p=0.9)


def test_unknown_fields_are_named_once() -> None:
    asked_for = decode({"messages": [{**HI, "mood": 1}, {**HI, "mood": 2}], "verbosity": "low", "novel": 1})
    assert asked_for.unknown_fields == ("novel", "messages[].mood")


def test_functions_ask_for_their_own_style() -> None:
    assert decode({"functions": [{"name": "f"}]}).dialect_state != decode({"tools": [CLOCK_TOOL]}).dialect_state == ""


DEEP: Any = 1
for _ in range(70):
    DEEP = [DEEP]

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": None}, "messages", "invalid_type"),
    ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
    ({"messages": [{}]}, "messages[0].role", "missing_required_parameter"),
    ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [HI, {"role": "user", "content": None}]}, "messages[1].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type", "missing_required_parameter"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
        "missing_required_parameter",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "zip"}]}]}, "messages[0].content[0].type", "invalid_value"),
    ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].tool_call_id", "missing_required_parameter"),
    (
        {"messages": [{"role": "tool", "content": "", "tool_call_id": "c9"}]},
        "messages[0].tool_call_id",
        "invalid_value",
    ),
    ({"messages": [{"role": "function", "content": "", "name": "f"}]}, "messages[0].role", "invalid_value"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]},
        "messages[0].tool_calls[0].function",
        "missing_required_parameter",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x", "type": "custom"}]}]},
        "messages[0].tool_calls[0].type",
        "unsupported_value",
    ),
    ({"model": 5}, "model", "invalid_type"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"temperature": 2.1}, "temperature", "invalid_value"),
    ({"temperature": -0.1}, "temperature", "invalid_value"),
    ({"temperature": "1"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"top_p": 1.1}, "top_p", "invalid_value"),
    ({"top_k": -2}, "top_k", "invalid_value"),
    ({"top_k": 2**31}, "top_k", "invalid_value"),
    ({"min_p": -1}, "min_p", "invalid_value"),
    ({"presence_penalty": 3}, "presence_penalty", "invalid_value"),
    ({"frequency_penalty": -3}, "frequency_penalty", "invalid_value"),
    ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"dog": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"²": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"1" * 10: 1}}, "logit_bias", "invalid_value"),
    ({"seed": 2**63}, "seed", "invalid_value"),
    ({"seed": 10**400}, "seed", "invalid_value"),
    ({"max_tokens": -1}, "max_tokens", "invalid_value"),
    ({"max_tokens": 10**400}, "max_tokens", "invalid_value"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens", "invalid_type"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
    ({"stop": [str(i) for i in range(17)]}, "stop", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 9}, "n", "invalid_value"),
    ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"logprobs": 3}, "logprobs", "invalid_type"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
        "missing_required_parameter",
    ),
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    ({"tools": [CLOCK_TOOL, {"type": "web_search"}]}, "tools[1].type", "unsupported_value"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
    ({"tools": [{"type": "function", "function": {"name": "a\n"}}]}, "tools[0].function.name", "invalid_value"),
    ({"tools": [{"type": "function", "function": {"name": "x" * 129}}]}, "tools[0].function.name", "invalid_value"),
    ({"tools": [CLOCK_TOOL, WEATHER_TOOL, CLOCK_TOOL]}, "tools[2].function.name", "invalid_value"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
        "tools[0].function.parameters",
        "invalid_value",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": [1]}}]},
        "tools[0].function.parameters",
        "invalid_type",
    ),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tool_choice": "any", "tools": [CLOCK_TOOL]}, "tool_choice", "invalid_value"),
    ({"tool_choice": {"type": "custom"}, "tools": [CLOCK_TOOL]}, "tool_choice.type", "unsupported_value"),
    (
        {"tool_choice": {"type": "function"}, "tools": [CLOCK_TOOL]},
        "tool_choice.function",
        "missing_required_parameter",
    ),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": [CLOCK_TOOL]},
        "tool_choice.function.name",
        "invalid_value",
    ),
    (
        {
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [WEATHER_TOOL]}},
            "tools": [CLOCK_TOOL],
        },
        "tool_choice.allowed_tools.tools[0].function.name",
        "invalid_value",
    ),
    ({"functions": [{"name": "f"}], "tools": [CLOCK_TOOL]}, "functions", "invalid_value"),
    ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions[1].name", "invalid_value"),
    ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call", "invalid_value"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call.name", "invalid_value"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
    ({"thinking": {"type": "perhaps"}}, "thinking.type", "invalid_value"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "invalid_value"),
    ({"guided_json": "[1]"}, "guided_json", "invalid_value"),
    ({"guided_json": {}, "grammar": "x"}, "guided_json", "invalid_value"),
    ({"response_format": {"type": "grammar"}}, "response_format.grammar", "missing_required_parameter"),
    ({"structured_outputs": {"tag": 1}}, "structured_outputs", "invalid_value"),
    ({"store": True}, "store", "unsupported_value"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_value"),
    ({"web_search_options": {}}, "web_search_options", "unsupported_value"),
    ({"never_heard_of": DEEP}, "never_heard_of", "invalid_value"),
    ({"messages": [{**HI, "mood": DEEP}]}, "messages[0].mood", "invalid_value"),
    ({"modalities": ["text", "image"]}, "modalities", "unsupported_value"),
    ({"modalities": ["text", "audio"]}, "modalities", "unsupported_value"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD, ids=[f"{param}-{i}" for i, (_, param, _) in enumerate(BAD)])
def test_refusals_name_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert f"'{param}'" in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (
            '"tools": [{"type": "function", "function": {"name": "f", "parameters": %s}}]',
            "tools[0].function.parameters",
        ),
        ('"chat_template_kwargs": %s', "chat_template_kwargs"),
        (
            '"response_format": {"type": "json_schema", "json_schema": {"schema": %s}}',
            "response_format.json_schema.schema",
        ),
        (
            '"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": %s}}]',
            "messages[0].function_call.arguments",
        ),
    ],
)
def test_free_form_json_is_bounded_in_depth(field: str, param: str) -> None:
    deep = '{"a":' * 200 + "1" + "}" * 200
    with pytest.raises(BadRequest, match="too deep") as caught:
        OpenAIChat().decode(f'{{"messages": [{{"role": "user", "content": "x"}}], {field % deep}}}'.encode(), DEFAULTS)
    assert caught.value.param == param


def test_damage_inside_tools_is_named() -> None:
    body = b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function\\ud800"}]}'
    with pytest.raises(BadRequest) as caught:
        OpenAIChat().decode(body, DEFAULTS)
    assert (caught.value.param, caught.value.code) == ("tools[0].type", "invalid_json")


def test_remembered_tools_are_those_of_the_request() -> None:
    dialect = OpenAIChat()
    bodies = [
        json.dumps({"messages": [HI], "tools": [{"type": "function", "function": {"name": f"f{i}"}}]}).encode()
        for i in range(12)
    ]
    for _ in range(2):
        for i, body in enumerate(bodies):
            assert dialect.decode(body, DEFAULTS).request.tools == (Tool(name=f"f{i}", parameters=NO_PARAMETERS),)
    assert dialect.decode(bodies[11], DEFAULTS).request.tools is dialect.decode(bodies[11], DEFAULTS).request.tools


def test_a_very_large_set_of_tools_is_decoded_like_any_other() -> None:
    tools = [{"type": "function", "function": {"name": f"f{i}", "description": "long " * 1000}} for i in range(60)]
    assert len(decode({"tools": tools}).request.tools) == 60


FIELD_NAMES = sorted({name for fields, *_ in [*FIELDS, *BAD] for name in fields})
KNOWN_WORDS = ["text", "function", "user", "assistant", "tool", "required", "json_schema", "clock", "c1", "messages"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(KNOWN_WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "function", "name", "parameters", "id", "schema"]),
            inner,
        )
    ),
    max_leaves=10,
)
MUTATED = st.tuples(
    st.sampled_from([fields for fields, *_ in [*FIELDS, *BAD]]), st.dictionaries(st.sampled_from(FIELD_NAMES), JSON)
).map(lambda pair: json.dumps({"messages": [HI], **pair[0], **pair[1]}).encode())


@given(
    MUTATED
    | st.binary()
    | st.tuples(MUTATED, st.binary(max_size=3), st.floats(0, 1)).map(
        lambda t: t[0][: int(len(t[0]) * t[2])] + t[1] + t[0][int(len(t[0]) * t[2]) :]
    )
)
def test_whatever_is_sent_is_decoded_or_refused(body: bytes) -> None:
    dialect = OpenAIChat()
    try:
        decoded = dialect.decode(body, DEFAULTS)
    except BadRequest as refused:
        dialect.encode_error(refused, "r")
    else:
        msgspec.json.encode(decoded)
