from typing import Annotated, Any

import msgspec

from service.dialects.base import WebSearchTool
from service.dialects.body_fields import UNREAD, FieldReader, OtherFields, Unread, join_fields
from service.dialects.json_body import show
from service.dialects.tool_definitions import ReadTools, ToolName, argument_schema, read_definitions, search_tool
from service.errors import BadRequest, MissingParameter, UnsupportedValue
from service.generation import Tool, ToolChoice

_TEXT = {"type": "string"}
_RANGE = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
_BASH = {"type": "object", "properties": {"command": _TEXT, "restart": {"type": "boolean"}}}
_MEMORY = {
    "type": "object",
    "properties": {
        "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert", "delete", "rename"]},
        "path": _TEXT,
        "view_range": _RANGE,
        "file_text": _TEXT,
        "old_str": _TEXT,
        "new_str": _TEXT,
        "insert_line": {"type": "integer"},
        "insert_text": _TEXT,
        "old_path": _TEXT,
        "new_path": _TEXT,
    },
    "required": ["command"],
}
_CUSTOM = "custom"
_WEB_SEARCH = "web_search"
_TOOL_SEARCH = "tool_search_tool"
# Anthropic's servers run these tools, or its models know them from images. They are omitted like all tools that have a
# version but no schema here, and the system prompt mentions it.
_LEFT_OUT = (_WEB_SEARCH, "web_fetch", "code_execution", "computer", _TOOL_SEARCH)
# The versions of the text editor that changed its parameters, as dates.
_NO_MORE_UNDO = "20250429"
_INSERT_TEXT = "20250728"


class ToolDefinition(msgspec.Struct, forbid_unknown_fields=True):
    """`type` is "custom", or the name and version of a tool that Anthropic's models know without a schema."""

    name: ToolName | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    max_uses: Annotated[int, msgspec.Meta(ge=1)] | None = None
    allowed_domains: tuple[str, ...] | None = None
    blocked_domains: tuple[str, ...] | None = None

    cache_control: Unread = UNREAD
    eager_input_streaming: Unread = UNREAD


class ToolChoiceObject(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class AutoChoice(ToolChoiceObject, tag="auto"): ...


class AnyChoice(ToolChoiceObject, tag="any"): ...


class NoneChoice(ToolChoiceObject, tag="none"): ...


class NamedChoice(ToolChoiceObject, tag="tool", kw_only=True):
    name: str


AnyToolChoice = AutoChoice | AnyChoice | NoneChoice | NamedChoice

_TOOL = FieldReader(ToolDefinition)


def read_tools(raw: bytes, *, searches: bool = False) -> ReadTools:
    definitions = read_definitions(_TOOL, raw)
    others: list[OtherFields] = []
    tools: list[Tool] = []
    absent: list[str] = []
    web_search: WebSearchTool | None = None
    first: dict[str, int] = {}
    # If Anthropic's servers search for tools, no one here could load a deferred tool.
    searched = not any((definition.type or "").startswith(_TOOL_SEARCH) for definition, _ in definitions)
    for i, (definition, unread) in enumerate(definitions):
        at = f"tools[{i}]"
        family, version = _family_and_version(definition)
        schema = _known_schema(family, version) if definition.input_schema is None else definition.input_schema
        if schema is not None:
            tool = _tool(definition, schema, at, deferred=searched and bool(definition.defer_loading))
        elif family == _WEB_SEARCH and searches:
            web_search = _web_search(definition, at)
            tool = search_tool(web_search.name)
        elif version or family.startswith(_LEFT_OUT):
            absent.append(definition.name or family)
            continue
        else:
            raise _without_schema(definition, at)
        if first.setdefault(tool.name, i) != i:
            here, there = f"{at}.name", f"tools[{first[tool.name]}].name"
            raise BadRequest.at(here, f"'{there}' is {show(tool.name)} already.")
        tools.append(tool)
        others.append(unread)
    return ReadTools(tuple(tools), tuple(absent), web_search, join_fields(*others))


def read_tool_choice(choice: AnyToolChoice | None, read: ReadTools) -> ToolChoice:
    tools = read.tools
    match choice:
        case NamedChoice(name=name) if name in read.absent:
            raise UnsupportedValue.at(
                "tool_choice.name",
                f"{show(name)} does not work here. Leave out 'tool_choice', or choose a tool with an 'input_schema' "
                "that the client runs.",
            )
        case AnyChoice() if read.absent and not tools:
            return ToolChoice()
        case NamedChoice(name=name):
            if all(tool.name != name for tool in tools):
                raise BadRequest.at("tool_choice.name", f"the request defines no tool {show(name)}.")
            return ToolChoice("required", name)
        case AnyChoice():
            if not tools:
                raise BadRequest.at("tool_choice", "a call is required, but there are no 'tools'.")
            return ToolChoice("required")
        case NoneChoice():
            return ToolChoice("none")
        case _:
            return ToolChoice()


def _family_and_version(definition: ToolDefinition) -> tuple[str, str]:
    """The version is a date at the end of the type, or empty."""
    kind = definition.type or _CUSTOM
    family, _, version = kind.rpartition("_")
    return (family, version) if version.isdigit() else (kind, "")


def _web_search(definition: ToolDefinition, at: str) -> WebSearchTool:
    allowed, blocked = definition.allowed_domains or (), definition.blocked_domains or ()
    if allowed and blocked:
        raise BadRequest.at(
            f"{at}.blocked_domains", "expected 'allowed_domains' or 'blocked_domains', found both. Leave one out."
        )
    return WebSearchTool(
        name=definition.name or _WEB_SEARCH,
        max_uses=definition.max_uses,
        allowed_domains=allowed,
        blocked_domains=blocked,
    )


def _tool(definition: ToolDefinition, schema: dict[str, Any], at: str, *, deferred: bool) -> Tool:
    if definition.name is None:
        raise MissingParameter(f"{at}.name")
    return Tool(
        name=definition.name,
        description=definition.description or "",
        parameters=argument_schema(schema, f"{at}.input_schema"),
        strict=bool(definition.strict),
        deferred=deferred,
    )


def _known_schema(family: str, version: str) -> dict[str, Any] | None:
    """Anthropic's documentation has these schemas. Tools that need images or Anthropic's servers have none."""
    match family:
        case "bash":
            return _BASH
        case "memory":
            return _MEMORY
        case "text_editor":
            return _editor_schema(version)
    return None


def _without_schema(definition: ToolDefinition, at: str) -> BadRequest:
    kind = definition.type or _CUSTOM
    if kind == _CUSTOM:
        return MissingParameter(f"{at}.input_schema")
    return UnsupportedValue.at(
        f"{at}.type",
        f"expected a tool that the client runs, found {show(kind)}. Leave it out, or give it an "
        "'input_schema' and run it yourself.",
    )


def _editor_schema(version: str) -> dict[str, Any]:
    commands = ["view", "create", "str_replace", "insert"]
    properties: dict[str, Any] = {
        "command": {"type": "string", "enum": commands},
        "path": _TEXT,
        "view_range": _RANGE,
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
