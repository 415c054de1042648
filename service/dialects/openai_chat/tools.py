"""Decodes OpenAI's tools and the deprecated functions."""

from typing import Any, Literal

import msgspec

from service.dialects.body_fields import UNREAD, FieldReader, Unread, join_fields
from service.dialects.json_body import choose, show
from service.dialects.openai_dialect import MODES
from service.dialects.tool_definitions import ReadTools, ToolName, argument_schema, read_definitions
from service.errors import BadRequest, MissingParameter, UnsupportedValue
from service.generation import Tool, ToolChoice


class FunctionDefinition(msgspec.Struct, forbid_unknown_fields=True):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    function: FunctionDefinition | None = None
    cache_control: Unread = UNREAD


class FunctionReference(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class ToolReference(msgspec.Struct, forbid_unknown_fields=True):
    function: FunctionReference
    type: Unread = UNREAD


class AllowedTools(msgspec.Struct, forbid_unknown_fields=True):
    tools: list[ToolReference]
    mode: str = "auto"


class ToolChoiceObject(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    function: FunctionReference | None = None
    allowed_tools: AllowedTools | None = None


_TOOL = FieldReader(ToolDefinition)


def read_tools(raw: bytes) -> ReadTools:
    definitions = read_definitions(_TOOL, raw)
    tools = []
    for i, (definition, _) in enumerate(definitions):
        at = f"tools[{i}]"
        if definition.type != "function":
            raise UnsupportedValue.at(f"{at}.type", f"expected 'function', found {show(definition.type)}.")
        if definition.function is None:
            raise MissingParameter(f"{at}.function")
        tools.append(_tool(definition.function, f"{at}.function"))
    _check_names(tools, "tools[{}].function.name")
    return ReadTools(tuple(tools), others=join_fields(*(unread for _, unread in definitions)))


def read_functions(functions: list[FunctionDefinition]) -> tuple[Tool, ...]:
    tools = [_tool(function, f"functions[{i}]") for i, function in enumerate(functions)]
    _check_names(tools, "functions[{}].name")
    return tuple(tools)


def read_tool_choice(
    choice: str | ToolChoiceObject | None, tools: tuple[Tool, ...]
) -> tuple[ToolChoice, tuple[Tool, ...]]:
    """Returns the choice and the tools that it leaves. Without tools, all choices that allow none are equal."""
    match choice:
        case None:
            return ToolChoice(), tools
        case str():
            mode = choose(choice, MODES, "tool_choice")
        case ToolChoiceObject(type="function", function=FunctionReference(name)):
            return _named(name, tools, "tool_choice.function.name"), tools
        case ToolChoiceObject(type="allowed_tools", allowed_tools=AllowedTools() as allowed):
            mode = choose(allowed.mode, MODES, "tool_choice.allowed_tools.mode")
            tools = _allowed(allowed, tools)
        case ToolChoiceObject(type="function" | "allowed_tools" as missing):
            raise MissingParameter(f"tool_choice.{missing}")
        case _:
            raise UnsupportedValue.at(
                "tool_choice.type", f"expected 'function' or 'allowed_tools', found {show(choice.type)}."
            )
    if tools:
        return ToolChoice(mode), tools
    if mode == "required":
        raise BadRequest.at("tool_choice", "a call is required, but there are no 'tools'.")
    return ToolChoice(), tools


def read_function_call(choice: str | FunctionReference | None, tools: tuple[Tool, ...]) -> ToolChoice:
    if isinstance(choice, FunctionReference):
        return _named(choice.name, tools, "function_call.name")
    modes: dict[str, Literal["auto", "none"]] = {"none": "none", "auto": "auto"}
    return ToolChoice(choose(choice or "auto", modes, "function_call"))


def _tool(function: FunctionDefinition, at: str) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=argument_schema(function.parameters, f"{at}.parameters"),
        strict=bool(function.strict),
    )


def _check_names(tools: list[Tool], param: str) -> None:
    first: dict[str, int] = {}
    for i, tool in enumerate(tools):
        if first.setdefault(tool.name, i) != i:
            here, there = param.format(i), param.format(first[tool.name])
            raise BadRequest.at(here, f"'{there}' has the name {show(tool.name)} already.")


def _named(name: str, tools: tuple[Tool, ...], param: str) -> ToolChoice:
    if all(tool.name != name for tool in tools):
        raise BadRequest.at(param, f"the request defines no tool {show(name)}.")
    return ToolChoice("required", name)


def _allowed(allowed: AllowedTools, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    names = {reference.function.name for reference in allowed.tools}
    for i, reference in enumerate(allowed.tools):
        _named(reference.function.name, tools, f"tool_choice.allowed_tools.tools[{i}].function.name")
    return tuple(tool for tool in tools if tool.name in names)
