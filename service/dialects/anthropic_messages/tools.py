"""Decodes Anthropic's tools and tool choice."""

from typing import Any

import msgspec

from service.dialects.json_body import decode, show
from service.dialects.tool_definitions import ToolName, argument_schema
from service.errors import BadRequest, MissingParameter, UnsupportedValue
from service.generation import Tool, ToolChoice

_TEXT = {"type": "string"}
_BASH = {"type": "object", "properties": {"command": _TEXT, "restart": {"type": "boolean"}}}
# The versions of the text editor that changed its parameters, as dates.
_NO_MORE_UNDO = "20250429"
_INSERT_TEXT = "20250728"


class ToolDefinition(msgspec.Struct):
    """`type` is "custom", or the name and version of a tool that Anthropic's models know without a schema."""

    name: ToolName | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceObject(msgspec.Struct, tag_field="type"):
    disable_parallel_tool_use: bool | None = None


class AutoChoice(ToolChoiceObject, tag="auto"):
    pass


class AnyChoice(ToolChoiceObject, tag="any"):
    pass


class NoneChoice(ToolChoiceObject, tag="none"):
    pass


class NamedChoice(ToolChoiceObject, tag="tool", kw_only=True):
    name: str


AnyToolChoice = AutoChoice | AnyChoice | NoneChoice | NamedChoice

_TOOLS = msgspec.json.Decoder(list[ToolDefinition] | None)


def read_tools(raw: bytes) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    first: dict[str, int] = {}
    for i, definition in enumerate(decode(_TOOLS, raw, at="tools") or ()):
        tool = _tool(definition, f"tools[{i}]")
        if first.setdefault(tool.name, i) != i:
            here, there = f"tools[{i}].name", f"tools[{first[tool.name]}].name"
            raise BadRequest(f"Invalid '{here}': '{there}' is {show(tool.name)} already.", param=here)
        tools.append(tool)
    return tuple(tools)


def read_tool_choice(choice: AnyToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    match choice:
        case NamedChoice(name=name):
            if all(tool.name != name for tool in tools):
                param = "tool_choice.name"
                raise BadRequest(f"Invalid '{param}': the request defines no tool {show(name)}.", param=param)
            return ToolChoice("required", name)
        case AnyChoice():
            if not tools:
                raise BadRequest(
                    "Invalid 'tool_choice': a call is required, but there are no 'tools'.", param="tool_choice"
                )
            return ToolChoice("required")
        case NoneChoice():
            return ToolChoice("none")
        case _:
            return ToolChoice()


def _tool(definition: ToolDefinition, at: str) -> Tool:
    schema = definition.input_schema
    if schema is None:
        schema = _known_schema(definition.type or "custom", at)
    if definition.name is None:
        raise MissingParameter(f"Missing required parameter: '{at}.name'.", param=f"{at}.name")
    return Tool(
        name=definition.name,
        description=definition.description or "",
        parameters=argument_schema(schema, f"{at}.input_schema"),
        strict=bool(definition.strict),
    )


def _known_schema(kind: str, at: str) -> dict[str, Any]:
    """The schema of a tool that the client runs and Anthropic defined (its documentation of the bash and the text
    editor tool). Tools that Anthropic's servers run (web search, code execution, ...) cannot be offered."""
    family, _, version = kind.rpartition("_")
    if family == "bash":
        return _BASH
    if family == "text_editor":
        return _editor_schema(version)
    if kind == "custom":
        raise MissingParameter(f"Missing required parameter: '{at}.input_schema'.", param=f"{at}.input_schema")
    raise UnsupportedValue(
        f"Invalid '{at}.type': expected a tool that the client runs, found {show(kind)}. Leave it out, or give it an "
        "'input_schema' and run it yourself.",
        param=f"{at}.type",
    )


def _editor_schema(version: str) -> dict[str, Any]:
    commands = ["view", "create", "str_replace", "insert"]
    properties: dict[str, Any] = {
        "command": {"type": "string", "enum": commands},
        "path": _TEXT,
        "view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "file_text": _TEXT,
        "old_str": _TEXT,
        "new_str": _TEXT,
        "insert_line": {"type": "integer"},
    }
    if version < _NO_MORE_UNDO:
        commands.append("undo_edit")
    if version >= _INSERT_TEXT:
        properties["insert_text"] = _TEXT
    return {"type": "object", "properties": properties, "required": ["command", "path"]}
