"""Bodies of the Responses dialect, good and bad."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dialects.base import ClientRequest
from service.dialects.openai_responses import OpenAIResponses
from service.dialects.openai_responses.items import seal, unseal
from service.dialects.openai_responses.kept import KeptResponse, KeptResponses
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
EMPTY = {"type": "object", "properties": {}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
F = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}
TOOL = Tool(name="f", parameters=SCHEMA)
USER = Message(role="user", content="hi")
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "f",
    "arguments": '{"x": 1}',
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "done"}
LARK = 'start: "a"'
NO_SEARCH = "These tools do not work here: web_search. Answer without them, and mention that."


def decode(fields: dict[str, Any], dialect: OpenAIResponses | None = None) -> ClientRequest:
    return (dialect or OpenAIResponses()).decode(json.dumps({"input": "hi", **fields}).encode(), GREEDY)


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"messages": (USER,), **fields})


def text(words: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": words}


def custom(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"input": value}, "required": ["input"]}


CALLED = Message(role="assistant", tool_calls=(ToolCall("c1", "f", '{"x": 1}'),))
ITEMS: dict[str, tuple[Any, list[Message]]] = {
    "text": ("hi", [USER]),
    "a message without a type": ([{"role": "user", "content": "hi"}], [USER]),
    "roles": (
        [
            {"type": "message", "role": "developer", "content": [text("a"), text("b")]},
            {"type": "message", "role": "system", "content": "s"},
            {"type": "message", "id": "m", "role": "user", "content": [text("hi")], "phase": None},
        ],
        [Message(role="system", content="a\nb"), Message(role="system", content="s"), USER],
    ),
    "one turn of the assistant": (
        [
            {"type": "reasoning", "id": "rs", "summary": [text("hm", "summary_text")], "encrypted_content": None},
            {
                "type": "message",
                "id": "msg",
                "role": "assistant",
                "status": "completed",
                "content": [{**text("I look.", "output_text"), "annotations": [], "logprobs": []}],
            },
            CALL,
            {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": '+ "a"', "namespace": "ns"},
            RESULT,
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [text("ok")]},
            {"role": "user", "content": "hi"},
        ],
        [
            Message(
                role="assistant",
                content="I look.",
                reasoning="hm",
                tool_calls=(
                    ToolCall("c1", "f", '{"x": 1}'),
                    ToolCall("c2", "ns__patch", r'{"input":"+ \"a\""}'),
                ),
            ),
            Message(role="tool", content="done", tool_call_id="c1"),
            Message(role="tool", content="ok", tool_call_id="c2"),
            USER,
        ],
    ),
    "reasoning that we sealed": (
        [
            {
                "type": "reasoning",
                "id": "rs",
                "summary": [text("short", "summary_text")],
                "encrypted_content": seal("long"),
            },
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "hi"},
        ],
        [Message(role="assistant", content="a", reasoning="long"), USER],
    ),
    "reasoning of another server": (
        [
            {
                "type": "reasoning",
                "id": "rs",
                "summary": [],
                "content": [text("open", "reasoning_text")],
                "encrypted_content": "gAAAA",
            },
            {"role": "assistant", "content": "a"},
        ],
        [Message(role="assistant", content="a", reasoning="open")],
    ),
    "a refusal": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        [Message(role="assistant", content="no")],
    ),
    "a summary": (
        [{"type": "compaction", "encrypted_content": seal("We met.")}, {"role": "user", "content": "hi"}],
        [Message(role="system", content="The conversation before this was summarized:\nWe met."), USER],
    ),
    "what OpenAI's servers did": (
        [
            {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}},
            {"role": "assistant", "content": "a"},
        ],
        [Message(role="assistant", content='[web_search_call: {"action":{"type":"search","query":"q"}}]\na')],
    ),
}


@pytest.mark.parametrize(("sent", "expected"), ITEMS.values(), ids=ITEMS)
def test_items(sent: Any, expected: list[Message]) -> None:
    assert decode({"input": sent}).request.messages == tuple(expected)


FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "instructions": ({"instructions": "s"}, {"messages": (Message(role="system", content="s"), USER)}),
    "sampling": ({"temperature": 1, "top_p": 0.5}, {"sampling": SamplingParams(temperature=1.0, top_p=0.5)}),
    "limits": ({"max_output_tokens": 7, "top_logprobs": 2}, {"max_tokens": 7, "logprobs": 2}),
    "logprobs": ({"include": ["message.output_text.logprobs"]}, {"logprobs": 0}),
    "effort": ({"reasoning": {"effort": "high"}}, {"template_arguments": {"reasoning_effort": "high"}}),
    "no reasoning": ({"reasoning": {"effort": "none", "summary": "auto"}}, {"thinking": "off"}),
    "plain text": ({"text": {"format": {"type": "text"}}}, {}),
    "an object": (
        {"text": {"format": {"type": "json_object"}}},
        {"response_format": ResponseFormat(kind="json_object")},
    ),
    "a schema": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}},
        {"response_format": ResponseFormat(kind="json_schema", schema=SCHEMA, name="n", strict=True)},
    ),
    "verbosity": ({"text": {"verbosity": "low"}}, {"unread_fields": {"verbosity": '"low"'}}),
    "no meaning": (
        {
            "metadata": {"a": "b"},
            "user": "u",
            "prompt_cache_key": "k",
            "client_metadata": {"x": "y"},
            "store": False,
            "service_tier": "auto",
            "max_tool_calls": 3,
            "stream_options": {"include_obfuscation": False},
            "truncation": "auto",
            "background": False,
        },
        {},
    ),
    "nulls": (dict.fromkeys(["tools", "text", "reasoning", "instructions", "previous_response_id", "include"]), {}),
    "unknown": (
        {"novel": 1, "input": [{"role": "user", "content": "hi", "mood": 2}]},
        {"unread_fields": {"novel": "1", "input[0].mood": "2"}},
    ),
    "a function": ({"tools": [F]}, {"tools": (TOOL,)}),
    "one call": ({"tools": [F], "parallel_tool_calls": False}, {"tools": (TOOL,), "parallel_tool_calls": False}),
    "required": ({"tools": [F], "tool_choice": "required"}, {"tools": (TOOL,), "tool_choice": ToolChoice("required")}),
    "named": (
        {"tools": [F], "tool_choice": {"type": "function", "name": "f"}},
        {"tools": (TOOL,), "tool_choice": ToolChoice("required", "f")},
    ),
    "allowed": (
        {
            "tools": [F, {**F, "name": "g"}],
            "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
        },
        {"tools": (TOOL,), "tool_choice": ToolChoice("required")},
    ),
    "custom": (
        {"tools": [{"type": "custom", "name": "patch", "description": "d"}]},
        {"tools": (Tool(name="patch", description="d", parameters=custom({"type": "string"})),)},
    ),
    "custom with a regular expression": (
        {
            "tools": [
                {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "regex", "definition": "a|b"}}
            ]
        },
        {"tools": (Tool(name="p", strict=True, parameters=custom({"type": "string", "pattern": "^(?:a|b)$"})),)},
    ),
    "custom with a Lark grammar": (
        {
            "tools": [
                {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "lark", "definition": LARK}}
            ]
        },
        {
            "tools": (
                Tool(
                    name="p",
                    strict=True,
                    grammar=LARK,
                    parameters=custom({"type": "string", "description": f"It follows this Lark grammar:\n{LARK}"}),
                ),
            )
        },
    ),
    "namespaces": (
        {
            "tools": [
                {"type": "namespace", "name": "ns", "description": "", "tools": [F, {"type": "custom", "name": "p"}]},
                {"type": "namespace", "name": "mcp__x__", "tools": [F]},
            ]
        },
        {
            "tools": (
                Tool(name="ns__f", parameters=SCHEMA),
                Tool(name="ns__p", parameters=custom({"type": "string"})),
                Tool(name="mcp__x__f", parameters=SCHEMA),
            )
        },
    ),
    "web search": (
        {"tools": [F, {"type": "web_search", "external_web_access": False}], "instructions": "s"},
        {"tools": (TOOL,), "messages": (Message(role="system", content=f"s\n\n{NO_SEARCH}"), USER)},
    ),
    "tools that nobody here can run": (
        {"tools": [F, {"type": "computer_use_preview"}, {"type": "mcp", "server_label": "m"}, {"type": "local_shell"}]},
        {
            "tools": (TOOL,),
            "messages": (
                Message(
                    role="system", content=NO_SEARCH.replace("web_search", "computer_use_preview, mcp, local_shell")
                ),
                USER,
            ),
        },
    ),
    "deferred tools and a search that the client runs": (
        {
            "tools": [
                {"type": "tool_search", "execution": "client", "description": "Finds.", "parameters": SCHEMA},
                {**F, "defer_loading": True},
            ]
        },
        {
            "tools": (
                Tool(name="tool_search", description="Finds.", parameters=SCHEMA),
                Tool(name="f", parameters=SCHEMA, deferred=True),
            )
        },
    ),
}


@pytest.mark.parametrize(("sent", "expected"), FIELDS.values(), ids=FIELDS)
def test_fields(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    assert decode(sent).request == request(**expected)


def test_tools_that_come_in_the_conversation_are_defined_there() -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "tool_search_call", "call_id": "s1", "execution": "client", "arguments": {"x": 1}},
        {"type": "tool_search_output", "call_id": "s1", "execution": "client", "tools": [F]},
        {"type": "additional_tools", "role": "developer", "tools": [{**F, "name": "g"}]},
    ]
    asked = decode({"input": items}).request
    definition = (
        '<functions>\n<function>{"description":"","name":"%s",'
        '"parameters":{"properties":{"x":{"type":"integer"}},"type":"object"}}</function>\n</functions>'
    )
    assert asked.tools == tuple(msgspec.structs.replace(TOOL, name=name, deferred=True) for name in "fg")
    assert [message.content for message in asked.messages[2:]] == [
        definition % "f",
        f"Tools were added:\n{definition % 'g'}",
    ]


def kept_dialect() -> OpenAIResponses:
    """A dialect that remembers the response `resp_1` to "hi", with a call of `f`, the item `fc_100`."""
    kept = KeptResponses()
    asked = msgspec.Raw(json.dumps({"role": "user", "content": "hi"}).encode())
    answer = json.dumps({"id": "resp_1", "output": [{**CALL, "id": "fc_100"}]}).encode()
    kept.add("", "resp_1", KeptResponse((asked,), msgspec.Raw(answer)))
    return OpenAIResponses(kept)


def test_a_response_continues_an_earlier_one() -> None:
    asked = decode({"input": [RESULT], "previous_response_id": "resp_1", "instructions": "new"}, kept_dialect())
    assert asked.request.messages == (
        Message(role="system", content="new"),
        USER,
        CALLED,
        Message(role="tool", content="done", tool_call_id="c1"),
    )


def test_an_item_stands_for_itself() -> None:
    items = [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": "fc_100"}, RESULT]
    assert decode({"input": items}, kept_dialect()).request.messages[1] == CALLED
    assert decode({"input": [items[0], {"id": "fc_100"}]}, kept_dialect()).request.messages[1] == CALLED


def test_responses_of_another_caller_are_not_there() -> None:
    with pytest.raises(BadRequest, match="not stored here") as caught:
        decode({"previous_response_id": "resp_1"}, kept_dialect().of_caller("someone"))
    assert (caught.value.status, caught.value.code) == (400, "previous_response_not_found")


def test_what_is_kept_is_bounded() -> None:
    kept = KeptResponses(max_responses=2, max_bytes=1000)
    answer = msgspec.Raw(b'{"output":[{"id":"msg_200"}]}')
    for i in range(3):
        kept.add("", f"resp_{i}", KeptResponse((), answer))
    assert [kept.get("", f"resp_{i}") is not None for i in range(3)] == [False, True, True]
    assert kept.find("", "msg_200") is not None
    kept.add("", "large", KeptResponse((msgspec.Raw(b'"' + b"x" * 990 + b'"'),), answer))
    assert len(kept) == 0
    assert kept.size == 0
    assert kept.find("", "msg_200") is None


@pytest.mark.parametrize("content", ["gAAAA", "anyclaude-1.!", "anyclaude-1./w==", ""])
def test_only_our_seals_are_opened(content: str) -> None:
    assert unseal(content) is None
    assert unseal(seal("ä")) == "ä"


DEEP: Any = 1
for _ in range(70):
    DEEP = [DEEP]

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "input", "missing_required_parameter"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": 5}, "input", "invalid_type"),
    ({"input": [5]}, "input[0]", "invalid_type"),
    ({"input": [{"type": "song"}]}, "input[0].type", "invalid_value"),
    ({"input": [{"role": "robot", "content": ""}]}, "input[0].role", "invalid_value"),
    ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ({"input": [{"role": "user", "content": [{"type": "zip"}]}]}, "input[0].content[0].type", "invalid_value"),
    ({"input": [RESULT]}, "input[0].call_id", "invalid_value"),
    (
        {"input": [CALL, {"type": "function_call_output", "output": ""}]},
        "input[1].call_id",
        "missing_required_parameter",
    ),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].id", "invalid_value"),
    ({"input": [{"type": "compaction", "encrypted_content": "g"}]}, "input[0].encrypted_content", "unsupported_value"),
    ({"input": [{"role": "user", "content": "", "mood": DEEP}]}, "input[0].mood", "invalid_value"),
    ({"input": [{"type": "mcp_call", "output": DEEP}]}, "input[0]", "invalid_value"),
    ({"previous_response_id": "resp_9"}, "previous_response_id", "previous_response_not_found"),
    ({"background": True}, "background", "unsupported_value"),
    ({"conversation": "c"}, "conversation", "unsupported_value"),
    ({"prompt": {"id": "p"}}, "prompt", "unsupported_value"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"truncation": "some"}, "truncation", "invalid_value"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "missing_required_parameter"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [F, F]}, "tools[1].name", "invalid_value"),
    ({"tools": [{"type": "teleport"}]}, "tools[0].type", "unsupported_value"),
    ({"tools": [{"type": "namespace", "tools": [F]}]}, "tools[0].name", "missing_required_parameter"),
    (
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "x"}]}]},
        "tools[0].tools[0].type",
        "unsupported_value",
    ),
    (
        {"tools": [{"type": "custom", "name": "p", "format": {"type": "grammar"}}]},
        "tools[0].format.definition",
        "missing_required_parameter",
    ),
    (
        {"tools": [{"type": "custom", "name": "p", "format": {"type": "grammar", "definition": "", "syntax": "y"}}]},
        "tools[0].format.syntax",
        "invalid_value",
    ),
    ({"tools": [{**F, "parameters": {"type": "array"}}]}, "tools[0].parameters", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tools": [F], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name", "invalid_value"),
    ({"tools": [F], "tool_choice": {"type": "function"}}, "tool_choice.name", "missing_required_parameter"),
    ({"tools": [F], "tool_choice": {"type": "mcp"}}, "tool_choice.type", "unsupported_value"),
    (
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        "tool_choice.type",
        "unsupported_value",
    ),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD, ids=[f"{param}-{i}" for i, (_, param, _) in enumerate(BAD)])
def test_refusals_name_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


WORDS = st.sampled_from(
    [
        "message",
        "user",
        "assistant",
        "function_call",
        "function_call_output",
        "reasoning",
        "item_reference",
        "c1",
        "f",
        "input_text",
        "custom",
        "namespace",
        "tool_search",
        "compaction",
        "mcp_call",
        "additional_tools",
        "anyclaude-1.",
    ]
)
NAMES = WORDS | st.sampled_from(
    ["type", "role", "content", "call_id", "name", "arguments", "output", "id", "tools", "text"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)
FIELD_NAMES = sorted({name for fields, *_ in [*FIELDS.values(), *BAD] for name in fields})


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(FIELD_NAMES), ANYTHING).map(
        lambda fields: json.dumps({"input": "x", **fields}).encode()
    )
    | st.lists(st.dictionaries(NAMES, ANYTHING, max_size=6)).map(lambda items: json.dumps({"input": items}).encode())
)
def test_whatever_is_sent_is_decoded_or_refused(body: bytes) -> None:
    dialect = OpenAIResponses()
    try:
        decoded = dialect.decode(body, GREEDY)
    except BadRequest as refused:
        dialect.encode_error(refused, "r")
    else:
        msgspec.json.encode(decoded.request)
