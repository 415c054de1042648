"""Describes tools to models whose chat template has none. The form is `hermes`, which most models have seen, unless the
template writes calls in another."""

import json
from collections.abc import Sequence

import msgspec

from service.generation import GenerationRequest, Tool, ToolCall, ToolChoice
from service.tool_calling.families import hermes
from service.tool_calling.form import CallForm

FAMILY = hermes.FAMILY.name
RESULT, RESULT_END = "<tool_response>", "</tool_response>"


def offered_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    return () if request.tool_choice.mode == "none" else request.tools


def listed_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    """Returns the offered tools that the beginning of the prompt defines."""
    tools = offered_tools(request)
    return tuple(tool for tool in tools if not tool.deferred) if any(tool.deferred for tool in tools) else tools


def instructions(
    tools: Sequence[Tool], choice: ToolChoice, *, parallel: bool = True, form: CallForm = hermes.FORM
) -> str:
    if not tools or choice.mode == "none":
        return ""
    example = form.render([ToolCall("", "TOOL_NAME", '{"ARGUMENT": "VALUE"}')])
    results = f"The result comes back in {RESULT} and {RESULT_END}. " if form.trigger == hermes.FORM.trigger else ""
    number = "one or more blocks" if parallel else "one block"
    return (
        "# Tools\n\n"
        "You can call these functions. Each line is one, with its parameters as a JSON Schema:\n"
        f"<tools>\n{_definitions(tools)}\n</tools>\n\n"
        f"To call a function, write {number} like this, with a JSON object inside, and stop:\n{example}\n"
        f"{results}{_demand(choice)}"
    )


def calls_as_text(content: str, calls: Sequence[ToolCall], form: CallForm = hermes.FORM) -> str:
    return "\n".join(part for part in (content, form.render(calls)) if part)


def result_as_text(content: str, *, name: str = "", is_error: bool = False) -> str:
    """`name` is the tool's, if known."""
    heading = " ".join(part for part in (name, "failed:" if is_error else "") if part)
    return "\n".join(part for part in (RESULT, heading, content, RESULT_END) if part)


def _definitions(tools: Sequence[Tool]) -> str:
    return "\n".join(
        msgspec.json.encode(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        ).decode()
        for tool in tools
    )


def _demand(choice: ToolChoice) -> str:
    if choice.name:
        return f"Now call the function {json.dumps(choice.name)}: do not answer with text."
    if choice.mode == "required":
        return "Now call a function: do not answer with text."
    return "If no function is needed, answer with text."
