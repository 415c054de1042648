"""What models whose template knows no tools are told of them."""

import json

import pytest

from service.generation import Tool, ToolCall, ToolChoice
from service.tool_calling import parse
from service.tool_calling.instructions import FAMILY, calls_as_text, instructions, result_as_text

TOOLS = [
    Tool(name="ping"),
    Tool(name="get_weather", description="Tells the weather.", parameters={"properties": {"city": {"type": "string"}}}),
]


def test_the_definitions_are_json_one_a_line() -> None:
    text = instructions(TOOLS, ToolChoice())
    block = text.split("<tools>\n")[1].split("\n</tools>")[0]
    assert [json.loads(line) for line in block.split("\n")] == [
        {"name": "ping", "description": "", "parameters": {}},
        {"name": "get_weather", "description": "Tells the weather.", "parameters": TOOLS[1].parameters},
    ]


@pytest.mark.parametrize(
    ("choice", "demand"),
    [
        (ToolChoice(), "If no function is needed, answer with text."),
        (ToolChoice("required"), "Now call a function: do not answer with text."),
        (ToolChoice("required", "ping"), 'Now call the function "ping": do not answer with text.'),
    ],
)
def test_the_choice_is_said_in_words(choice: ToolChoice, demand: str) -> None:
    assert instructions(TOOLS, choice).endswith(demand)


def test_nothing_is_said_where_nothing_may_be_called() -> None:
    assert instructions([], ToolChoice()) == ""
    assert instructions(TOOLS, ToolChoice("none")) == ""


def test_whether_several_calls_are_wanted_is_said() -> None:
    assert "one or more blocks" in instructions(TOOLS, ToolChoice())
    assert "one block" in instructions(TOOLS, ToolChoice(), parallel=False)


def test_the_example_is_in_the_form_that_is_parsed() -> None:
    example = "<tool_call>" + instructions(TOOLS, ToolChoice()).split("<tool_call>")[1]
    (call,) = parse(example, [Tool(name="TOOL_NAME")], FAMILY).tool_calls
    assert call.arguments == '{"ARGUMENT": "VALUE"}'


def test_an_earlier_turn_is_as_the_model_wrote_it() -> None:
    calls = [ToolCall("1", "ping", "{}"), ToolCall("2", "get_weather", '{"city": "Köln"}')]
    text = calls_as_text("I will.", calls)
    assert text.startswith("I will.\n<tool_call>\n")
    parsed = parse(text, TOOLS, FAMILY)
    assert parsed.content == "I will."
    assert [(call.name, call.arguments) for call in parsed.tool_calls] == [
        (call.name, call.arguments) for call in calls
    ]
    assert calls_as_text("Only text.", []) == "Only text."


def test_results_are_text_and_failures_say_so() -> None:
    assert result_as_text("12 degrees") == "<tool_response>\n12 degrees\n</tool_response>"
    assert result_as_text("no city", name="get_weather", is_error=True) == (
        "<tool_response>\nget_weather failed:\nno city\n</tool_response>"
    )
