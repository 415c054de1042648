import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.dialects.anthropic_messages import AnthropicMessages
from service.dialects.base import ClientRequest
from service.errors import BadRequest, InvalidJson, InvalidType, MissingParameter, ThreadUnsupported, UnsupportedValue
from service.generation import (
    GenerationRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Tool,
    ToolCall,
    ToolChoice,
)

DEFAULTS = SamplingParams(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1)
HI = {"role": "user", "content": "hi"}
USER = Message(role="user", content="hi")
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
F = {"name": "f", "description": "does f", "input_schema": SCHEMA}
USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}]}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def body(**fields: Any) -> bytes:
    return json.dumps({"max_tokens": 5, "messages": [HI], **fields}).encode()


def asked(**fields: Any) -> ClientRequest:
    return AnthropicMessages().decode(body(**fields), DEFAULTS)


def request(**fields: Any) -> GenerationRequest:
    base = {"messages": (USER,), "max_tokens": 5, "sampling": DEFAULTS}
    return GenerationRequest(**{**base, **fields})


def tool_result(**fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", **fields}


CALLED = Message(role="assistant", tool_calls=(ToolCall("toolu_1", "f", '{"x": 1}'),))


def answered(content: str = "", **more: Any) -> Message:
    return Message(role="tool", tool_call_id="toolu_1", content=content, **more)


MESSAGES = {
    "plain text": ([HI], [USER]),
    "white space is kept": ([{"role": "user", "content": " \n hi "}], [Message(role="user", content=" \n hi ")]),
    "blocks are joined by lines": (
        [{"role": "user", "content": [text("a", cache_control={"type": "ephemeral"}), text("b\n"), text("c")]}],
        [Message(role="user", content="a\nb\n\nc")],
    ),
    "system messages stay in their place": (
        [HI, {"role": "system", "content": "s"}, HI, {"role": "system", "content": [text("t"), text("u")]}],
        [USER, Message(role="system", content="s"), USER, Message(role="system", content="t\nu")],
    ),
    "an empty turn": ([{"role": "user", "content": []}], [Message(role="user")]),
    "an assistant that thinks, speaks and calls": (
        [
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "abc"},
                    {"type": "redacted_thinking", "data": "xyz"},
                    text("I will"),
                    {"type": "thinking", "thinking": "so"},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {}},
                    {"type": "tool_use", "id": "b", "name": "g", "input": {"n": 12345678901234567890}},
                    text("now"),
                ],
            }
        ],
        [
            Message(
                role="assistant",
                content="I will\nnow",
                reasoning="hm\nso",
                tool_calls=(ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"n": 12345678901234567890}')),
            )
        ],
    ),
    "a result as text": (
        [USE, {"role": "user", "content": [tool_result(content="done", is_error=False)]}],
        [CALLED, answered("done")],
    ),
    "a result in blocks, failed": (
        [USE, {"role": "user", "content": [tool_result(content=[text("no"), text("way")], is_error=True)]}],
        [CALLED, answered("no\nway", is_error=True)],
    ),
    "a result of nothing": (
        [USE, {"role": "user", "content": [tool_result(), tool_result(content=None), tool_result(content=[])]}],
        [CALLED, answered(), answered(), answered()],
    ),
    "results come before what the user says": (
        [USE, {"role": "user", "content": [text("see"), tool_result(content="1"), text("this"), tool_result()]}],
        [CALLED, answered("1"), answered(), Message(role="user", content="see\nthis")],
    ),
    "what Anthropic's servers did": (
        [
            HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
                    {"type": "compaction", "content": None},
                    {"type": "compaction", "content": "We spoke of Bern."},
                    text("I search."),
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "Bern"}},
                    {
                        "type": "web_search_tool_result",
                        "tool_use_id": "s1",
                        "content": [{"title": "Bern", "url": "http://b", "encrypted_content": "x" * 99}],
                    },
                    {"type": "mcp_tool_use", "id": "m1", "name": "look", "server_name": "s", "input": {}},
                    {"type": "mcp_tool_result", "tool_use_id": "m1", "is_error": False, "content": "nothing"},
                    {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []},
                    {"type": "container_upload", "file_id": "f1"},
                    text("It is a city."),
                ],
            },
            HI,
        ],
        [
            USER,
            Message(
                role="assistant",
                content="We spoke of Bern.\nI search.\n"
                '[web_search was called with {"query":"Bern"}]\n[web_search returned [{"title":"Bern","url":"http://b"}]]\n'
                "[look was called with {}]\n[mcp returned nothing]\n[file f1: it cannot be read here]\nIt is a city.",
            ),
            USER,
        ],
    ),
    "documents of text, and search results": (
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "title": "T",
                        "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                    },
                    {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}},
                    {"type": "search_result", "source": "s", "title": "R", "content": [text("c")]},
                ],
            }
        ],
        [Message(role="user", content="T\nd\na\nb\nR (s)\nc")],
    ),
    "a message that is for one turn only": (
        [
            HI,
            {"role": "system", "content": "now", "clear_at": "next_user_message"},
            {"role": "assistant", "content": "a"},
            HI,
            {"role": "system", "content": "then", "clear_at": "next_user_message"},
        ],
        [USER, Message(role="assistant", content="a"), USER, Message(role="system", content="then")],
    ),
    "a prefill is the last message": (
        [HI, {"role": "assistant", "content": "The answer is "}],
        [USER, Message(role="assistant", content="The answer is ")],
    ),
}


@pytest.mark.parametrize(("sent", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_messages(sent: list[Any], expected: list[Message]) -> None:
    assert asked(messages=sent).request.messages == tuple(expected)


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("You are terse.", "You are terse."),
        ([text("a", cache_control={"type": "ephemeral"}), text("\nb")], "a\n\nb"),
        ("", None),
        ([], None),
        (None, None),
    ],
)
def test_system(system: Any, content: str | None) -> None:
    expected = (USER,) if content is None else (Message(role="system", content=content), USER)
    assert asked(system=system).request.messages == expected


TOOL = Tool(name="f", description="does f", parameters=SCHEMA)
NO_SEARCH = "These tools do not work here: web_search. Answer without them, and mention that."
EMPTY = {"type": "object", "properties": {}}

FIELDS = {
    "nothing": ({}, {}),
    "max_tokens 0": ({"max_tokens": 0}, {"max_tokens": 0}),
    "sampling": (
        {"temperature": 0, "top_p": 0.5, "top_k": 3},
        {"sampling": msgspec.structs.replace(DEFAULTS, temperature=0, top_p=0.5, top_k=3)},
    ),
    "top_p 0": ({"top_p": 0}, {"sampling": msgspec.structs.replace(DEFAULTS, temperature=0, top_p=1)}),
    "stop": ({"stop_sequences": ["b", "a", "b"]}, {"stop": ("b", "a")}),
    "tools": ({"tools": [{**F, "cache_control": {}, "type": "custom", "strict": True}]},
              {"tools": (msgspec.structs.replace(TOOL, strict=True),)}),
    "tool without description": ({"tools": [{"name": "f", "input_schema": SCHEMA}]},
                                 {"tools": (msgspec.structs.replace(TOOL, description=""),)}),
    "tool without parameters": ({"tools": [{"name": "f", "input_schema": {}}]},
                                {"tools": (Tool(name="f", parameters=EMPTY),)}),
    "schema without type": ({"tools": [{"name": "f", "input_schema": {"properties": {}}}]},
                            {"tools": (Tool(name="f", parameters=EMPTY),)}),
    "server tool with a schema": ({"tools": [{**F, "type": "web_search_20250305"}]}, {"tools": (TOOL,)}),
    "no tools": ({"tools": []}, {}),
    "auto": ({"tools": [F], "tool_choice": {"type": "auto"}}, {"tools": (TOOL,)}),
    "any": ({"tools": [F], "tool_choice": {"type": "any"}}, {"tools": (TOOL,), "tool_choice": ToolChoice("required")}),
    "one": ({"tools": [F], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
            {"tools": (TOOL,), "tool_choice": ToolChoice("required", "f"), "parallel_tool_calls": False}),
    "none": ({"tools": [F], "tool_choice": {"type": "none"}}, {"tools": (TOOL,), "tool_choice": ToolChoice("none")}),
    "one call at most": ({"tools": [F], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
                         {"tools": (TOOL,), "parallel_tool_calls": False}),
    "thinking": ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"thinking": "on", "thinking_budget": 1024}),
    "adaptive": ({"thinking": {"type": "adaptive", "display": "omitted"}}, {}),
    "no thinking": ({"thinking": {"type": "disabled"}}, {"thinking": "off"}),
    "no thinking but between tools": ({"thinking": {"type": "between_tools"}}, {"thinking": "off"}),
    "effort": ({"output_config": {"effort": "high"}}, {"template_arguments": {"reasoning_effort": "high"}}),
    "an effort of tomorrow": ({"output_config": {"effort": "heroic"}}, {}),
    "schema": ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
               {"response_format": ResponseFormat(kind="json_schema", schema=SCHEMA, strict=True)}),
    "schema, older": ({"output_format": {"type": "json_schema", "schema": SCHEMA}},
                      {"response_format": ResponseFormat(kind="json_schema", schema=SCHEMA, strict=True)}),
    "ignored": ({"metadata": {"user_id": "x"}, "service_tier": "auto", "betas": ["x"], "safeguards": [{"x": 1}],
                 "cache_control": {"type": "ephemeral"}, "container": None, "mcp_servers": []}, {}),
    "not read, but part of the question": (
        {"context_management": {"edits": []}, "unheard_of": [1], "messages": [{**HI, "mood": "x", "id": "m"}]},
        {"unread_fields": {"context_management": '{"edits":[]}', "unheard_of": "[1]", "messages[0].mood": '"x"'}}),
    "the latest effort": (
        {"output_config": {"effort": "low"},
         "messages": [{"role": "system", "content": "s", "output_config": {"effort": "max"}}, HI]},
        {"messages": (Message(role="system", content="s"), USER), "template_arguments": {"reasoning_effort": "max"}}),
    "web search": (
        {"tools": [F, {"type": "web_search_20250305", "name": "web_search"}], "system": "s"},
        {"tools": (TOOL,), "messages": (Message(role="system", content=f"s\n\n{NO_SEARCH}"), USER)}),
    "web search alone": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}], "tool_choice": {"type": "any"}},
        {"messages": (Message(role="system", content=NO_SEARCH), USER)}),
    "tools that Anthropic defined and nobody here can run": (
        {"tools": [F, {"type": "code_execution_20250825", "name": "run"}, {"type": "of_tomorrow_20270101"},
                   {"type": "computer_20251124", "name": "computer", "display_width_px": 1, "display_height_px": 1}]},
        {"tools": (TOOL,),
         "messages": (Message(role="system", content=NO_SEARCH.replace("web_search", "run, of_tomorrow, computer")),
                      USER)}),
    "deferred tools": ({"tools": [{**F, "defer_loading": True}]},
                       {"tools": (msgspec.structs.replace(TOOL, deferred=True),)}),
    "tools that Anthropic's search would load": (
        {"tools": [{"type": "tool_search_tool_regex_20251119", "name": "search"}, {**F, "defer_loading": True}]},
        {"tools": (TOOL,), "messages": (Message(role="system", content=NO_SEARCH.replace("web_", "")), USER)}),
    "nulls": (dict.fromkeys(("system", "model", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tools",
                             "tool_choice", "thinking", "output_config", "output_format")), {}),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), FIELDS.values(), ids=FIELDS)
def test_fields(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    assert asked(**sent).request == request(**expected)


def test_delivery() -> None:
    assert asked(model="claude-x", stream=True) == ClientRequest(
        request=request(), model="claude-x", stream=True, include_usage=True
    )
    assert asked().model is None
    assert asked().stream is False


EDITORS = {
    "text_editor_20241022": {"undo_edit"},
    "text_editor_20250124": {"undo_edit"},
    "text_editor_20250429": set(),
    "text_editor_20250728": {"insert_text"},
}


@pytest.mark.parametrize(("kind", "special"), EDITORS.items())
def test_the_text_editor_comes_in_versions(kind: str, special: set[str]) -> None:
    (tool,) = asked(tools=[{"type": kind, "name": "str_replace_based_edit_tool"}]).request.tools
    properties = tool.parameters["properties"]
    assert tool.name == "str_replace_based_edit_tool"
    assert tool.parameters["required"] == ["command", "path"]
    assert {"undo_edit", "insert_text"} & {*properties, *properties["command"]["enum"]} == special


def test_memory_needs_no_schema() -> None:
    (tool,) = asked(tools=[{"type": "memory_20250818", "name": "memory"}]).request.tools
    assert (tool.name, tool.parameters["required"]) == ("memory", ["command"])
    assert {"rename", "delete"} <= set(tool.parameters["properties"]["command"]["enum"])


def test_bash_needs_no_schema() -> None:
    (tool,) = asked(tools=[{"type": "bash_20250124", "name": "bash"}]).request.tools
    assert (tool.name, set(tool.parameters["properties"])) == ("bash", {"command", "restart"})


def blocks(*content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(content)}]}


DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"type": "object", "properties": {"x": DEEP}}

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
BAD = [
    ({"messages": []}, BadRequest, "messages", "length >= 1"),
    ({"messages": "hi"}, InvalidType, "messages", "expected array, found string"),
    ({"messages": [{"role": "tool", "content": "x"}]}, BadRequest, "messages[0].role", '"tool"'),
    ({"messages": [{"role": "user"}]}, MissingParameter, "messages[0].content", "Missing"),
    ({"messages": [{"role": "user", "content": None}]}, InvalidType, "messages[0].content", "found null"),
    (blocks({"type": "text"}), MissingParameter, "messages[0].content[0].text", "Missing"),
    (blocks({"text": "x"}), MissingParameter, "messages[0].content[0].type", "Missing"),
    (blocks({"type": "video"}), BadRequest, "messages[0].content[0].type", '"video"'),
    ({"messages": [USE, {"role": "user", "content": [tool_result(content=[tool_result()])]}]},
     BadRequest, "messages[1].content[0].content[0].type", '"tool_result"'),
    (blocks(tool_result()), BadRequest, "messages[0].content[0].tool_use_id", 'no earlier assistant message has a'),
    (blocks({"type": "tool_result"}), MissingParameter, "messages[0].content[0].tool_use_id", "Missing"),
    (blocks(USE["content"][0]), BadRequest, "messages[0].content[0].type", "no place in a user message"),
    (blocks(tool_result(), role="assistant"), BadRequest, "messages[0].content[0].type", "in an assistant message"),
    (blocks(USE["content"][0], role="system"), BadRequest, "messages[0].content[0].type", "in a system message"),
    (blocks({**USE["content"][0], "input": [1]}, role="assistant"), InvalidType, "messages[0].content[0].input",
     "expected object, found array"),
    (blocks({**USE["content"][0], "input": DEEP}, role="assistant"), BadRequest, "messages[0].content[0].input",
     "too deep"),
    ({"system": [IMAGE]}, BadRequest, "system[0].type", '"image"'),
    ({"system": 5}, InvalidType, "system", "found integer"),
    ({"max_tokens": None}, InvalidType, "max_tokens", "found null"),
    ({"max_tokens": -1}, BadRequest, "max_tokens", ">= 0, found -1"),
    ({"max_tokens": 1.5}, InvalidType, "max_tokens", "found number"),
    ({"temperature": 1.1}, BadRequest, "temperature", "<= 1.0, found 1.1"),
    ({"top_p": -0.1}, BadRequest, "top_p", ">= 0.0"),
    ({"top_k": -1}, BadRequest, "top_k", ">= 0"),
    ({"stop_sequences": [""]}, BadRequest, "stop_sequences[0]", "length >= 1"),
    ({"stop_sequences": "x"}, InvalidType, "stop_sequences", "found string"),
    ({"stop_sequences": ["x"] * 65}, BadRequest, "stop_sequences", "length <= 64"),
    ({"stream": "yes"}, InvalidType, "stream", "found string"),
    ({"tools": {}}, InvalidType, "tools", "expected array or null, found object"),
    ({"tools": [{"name": "f"}]}, MissingParameter, "tools[0].input_schema", "Missing"),
    ({"tools": [{"input_schema": {}}]}, MissingParameter, "tools[0].name", "Missing"),
    ({"tools": [{**F, "name": "a b"}]}, BadRequest, "tools[0].name", '"a b"'),
    ({"tools": [F, F]}, BadRequest, "tools[1].name", "'tools[0].name' is \"f\" already"),
    ({"tools": [{**F, "input_schema": {"type": "array"}}]}, BadRequest, "tools[0].input_schema", '"array"'),
    ({"tools": [{**F, "input_schema": DEEP}]}, BadRequest, "tools[0].input_schema", "too deep"),
    ({"thread": {"type": "create"}}, ThreadUnsupported, "thread", "Send the whole conversation"),
    ({"container": "c"}, UnsupportedValue, "container", "no containers"),
    ({"mcp_servers": [{}]}, UnsupportedValue, "mcp_servers", "calls no MCP servers"),
    ({"messages": [{**HI, "clear_at": "soon"}]}, BadRequest, "messages[0].clear_at", '"soon"'),
    ({"unheard_of": DEEP}, BadRequest, "unheard_of", "too deep"),
    (blocks({"type": "server_tool_use", "id": "s", "name": "w", "input": DEEP}, role="assistant"), BadRequest,
     "messages[0].content[0].input", "too deep"),
    (blocks({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": F}}, role="system"),
     UnsupportedValue, "messages[0].content[0].tool", "the 'name' of one of the request's 'tools'"),
    (blocks({"type": "tool_reference", "tool_name": "f"}), BadRequest, "messages[0].content[0].type",
     "no place in a user message"),
    ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, UnsupportedValue, "tools[0].type", "mcp_toolset"),
    ({"tool_choice": {"type": "any"}}, BadRequest, "tool_choice", "there are no 'tools'"),
    ({"tools": [F], "tool_choice": {"type": "tool", "name": "g"}}, BadRequest, "tool_choice.name", 'no tool "g"'),
    ({"tool_choice": {"type": "tool"}}, MissingParameter, "tool_choice.name", "Missing"),
    ({"tools": [{"type": "web_search_20250305", "name": "seek"}], "tool_choice": {"type": "tool", "name": "seek"}},
     UnsupportedValue, "tool_choice.name", "does not work here"),
    ({"tools": [F, {"type": "code_execution_20250825", "name": "run"}], "tool_choice": {"type": "tool", "name": "run"}},
     UnsupportedValue, "tool_choice.name", "does not work here"),
    ({"tools": [{"type": "function", "name": "f"}]}, UnsupportedValue, "tools[0].type", 'found "function"'),
    ({"tool_choice": {"type": "some"}}, BadRequest, "tool_choice.type", '"some"'),
    ({"tool_choice": "auto"}, InvalidType, "tool_choice", "found string"),
    ({"thinking": {"type": "maybe"}}, BadRequest, "thinking.type", '"maybe"'),
    ({"output_config": {"format": {"type": "yaml"}}}, BadRequest, "output_config.format.type", '"yaml"'),
    ({"output_config": {"format": {"type": "json_schema", "schema": DEEP}}},
     BadRequest, "output_config.format.schema", "too deep"),
    ({"output_format": {"type": "json_schema"}}, MissingParameter, "output_format.schema", "Missing"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "error", "param", "words"), BAD, ids=[f"{p}: {w}" for _, _, p, w in BAD])
def test_what_is_wrong_is_named(sent: dict[str, Any], error: type[BadRequest], param: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        asked(**sent)
    assert type(caught.value) is error
    assert caught.value.param == param
    assert words in caught.value.message
    assert len(caught.value.message) < 300


BROKEN = [
    (b"", None),
    (b"{", None),
    (b'{"max_tokens": 1, "messages": [{"role": "user", "content": "\xff"}]}', "messages[0].content"),
    (b'{"max_tokens": 1, "messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content"),
    (
        b'{"max_tokens": 1, "messages": [{"role": "assistant", "content": '
        b'[{"type": "tool_use", "id": "a", "name": "f", "input": {"x": "\\ud800"}}]}]}',
        "messages[0].content[0].input.x",
    ),
    (
        b'{"max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "tools": [{"name": "\xff"}]}',
        "tools[0].name",
    ),
]


@pytest.mark.parametrize(("sent", "param"), BROKEN)
def test_broken_json_is_refused(sent: bytes, param: str | None) -> None:
    with pytest.raises(InvalidJson) as caught:
        AnthropicMessages().decode(sent, DEFAULTS)
    assert caught.value.param == param


def test_counting_takes_the_same_body_without_max_tokens() -> None:
    dialect = AnthropicMessages()
    sent = json.dumps({"messages": [HI], "tools": [F], "system": "s", "model": "m"}).encode()
    counted = dialect.decode_count(sent, DEFAULTS)
    asked_for = dialect.decode(sent[:-1] + b', "max_tokens": 5}', DEFAULTS)
    assert counted.model == "m"
    assert msgspec.structs.replace(counted.request, max_tokens=5) == asked_for.request
    with pytest.raises(MissingParameter, match="'max_tokens'"):
        dialect.decode(sent, DEFAULTS)


def test_tools_are_remembered_unless_they_are_wrong() -> None:
    dialect = AnthropicMessages()
    first, second = (dialect.decode(body(tools=[F]), DEFAULTS).request.tools for _ in range(2))
    assert first is second
    for _ in range(2):
        with pytest.raises(BadRequest):
            dialect.decode(body(tools=[F, F]), DEFAULTS)
    large = {**F, "description": "x" * 300_000}
    first, second = (dialect.decode(body(tools=[large]), DEFAULTS).request.tools for _ in range(2))
    assert first == second
    assert first is not second


def test_a_tool_that_is_loaded_is_defined_where_it_is_loaded() -> None:
    search = {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {}}],
    }
    found = {"role": "user", "content": [tool_result(content=[{"type": "tool_reference", "tool_name": "f"}])]}
    added = {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}]}
    gone = {"role": "system", "content": [{"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}}]}
    request = asked(tools=[{**F, "defer_loading": True}], messages=[HI, search, found, added, gone]).request
    definition = (
        '<functions>\n<function>{"description":"does f","name":"f",'
        '"parameters":{"properties":{"x":{"type":"integer"}},"type":"object"}}</function>\n</functions>'
    )
    assert [message.content for message in request.messages[2:]] == [
        definition,
        f"A tool was added:\n{definition}",
        "The tool f was removed.",
    ]


def test_a_refused_thread_has_the_code_that_clients_look_for() -> None:
    with pytest.raises(ThreadUnsupported) as caught:
        asked(thread={"type": "continue", "previous_message_id": "msg_A"})
    error = json.loads(AnthropicMessages().encode_error(caught.value, "r"))["error"]
    assert error["details"] == {"error_code": "thread_unsupported_request"}


WORDS = st.sampled_from(
    ["text", "user", "assistant", "system", "tool_use", "tool_result", "thinking", "image", "f", "toolu_1", "auto", "x"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
NAMES = WORDS | st.sampled_from(["type", "id", "name", "input", "content", "tool_use_id", "role", "input_schema"])
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5),
    max_leaves=15,
)
FIELD_NAMES = [
    "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream", "model", "tools",
    "tool_choice", "thinking", "output_config", "output_format",
]  # fmt: skip


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(FIELD_NAMES), ANYTHING).map(lambda fields: body(**fields))
    | st.lists(st.fixed_dictionaries({"role": WORDS, "content": ANYTHING})).map(lambda sent: body(messages=sent))
)
@example(b"[" * 100_000)
@example(b'{"messages":' * 10_000)
def test_whatever_is_sent_is_decoded_or_refused(sent: bytes) -> None:
    try:
        decoded = AnthropicMessages().decode(sent, DEFAULTS)
    except BadRequest as refused:
        refused.message.encode()
    else:
        msgspec.json.encode(decoded)
