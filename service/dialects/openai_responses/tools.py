"""Decodes the tools of the Responses API: functions, custom tools, and namespaces of both."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from service.dialects.base import WebSearchTool
from service.dialects.body_fields import FieldReader, join_fields
from service.dialects.json_body import choose, show
from service.dialects.openai_dialect import MODES
from service.dialects.tool_definitions import ReadTools, ToolName, argument_schema, read_definitions, search_tool
from service.errors import BadRequest, MissingParameter, UnsupportedValue
from service.generation import Tool, ToolChoice

ToolKind = Literal["function", "custom", "tool_search"]

# The one argument of a custom tool, whose input is text.
INPUT = "input"
TOOL_SEARCH = "tool_search"
WEB_SEARCH = "web_search"

# OpenAI's servers run these tools, or its models know them without a schema. They are omitted, and the system prompt
# mentions it.
_LEFT_OUT = (
    WEB_SEARCH,
    "image_generation",
    "file_search",
    "code_interpreter",
    "computer",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
)


class InputFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    syntax: str | None = None
    definition: str | None = None


class SearchFilters(msgspec.Struct, forbid_unknown_fields=True):
    allowed_domains: tuple[str, ...] | None = None
    blocked_domains: tuple[str, ...] | None = None


class ToolDefinition(msgspec.Struct, forbid_unknown_fields=True):
    """`execution` belongs to `tool_search`, `filters` and `external_web_access` to `web_search`."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    format: InputFormat | None = None
    execution: str | None = None
    filters: SearchFilters | None = None
    external_web_access: bool | None = None


class OfferedTool(ToolDefinition):
    """`tools` belongs to `namespace`."""

    tools: list[ToolDefinition] | None = None


class ToolReference(msgspec.Struct, forbid_unknown_fields=True):
    type: str = "function"
    name: str | None = None


class ToolChoiceObject(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    type: str
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[ToolReference] | None = None


class WireName(msgspec.Struct, frozen=True):
    """The client's name of a tool."""

    kind: ToolKind
    name: str
    namespace: str = ""


class NamedTools(ReadTools, frozen=True, kw_only=True):
    """`names` has the client's tools by the name that the model reads."""

    names: Mapping[str, WireName] = {}


_TOOL = FieldReader(OfferedTool)


def read_tools(raw: bytes, at: str = "tools", *, searches: bool = False) -> NamedTools:
    read = read_definitions(_TOOL, raw, at)
    definitions = [definition for definition, _ in read]
    tools: dict[str, Tool] = {}
    names: dict[str, WireName] = {}
    absent: list[str] = []
    web_search: WebSearchTool | None = None
    # If OpenAI's servers search for tools, no one here could load a deferred tool.
    searched = not any(tool.type == TOOL_SEARCH and _runs_elsewhere(tool) for tool in definitions)
    for path, namespace, definition in _flat(definitions, at):
        if searches and _searches_web(definition):
            web_search = _web_search(definition.filters or SearchFilters())
            tools[WEB_SEARCH] = search_tool(WEB_SEARCH)
            continue
        if _runs_elsewhere(definition):
            absent.append(definition.type)
            continue
        wire = _wire_name(definition, namespace, path)
        name = model_name(wire.namespace, wire.name)
        if name in tools:
            raise BadRequest.at(f"{path}.name", f"there is a tool {show(name)} already.")
        deferred = searched and bool(definition.defer_loading)
        tools[name] = _tool(name, definition, path, deferred=deferred)
        names[name] = wire
    others = [unread for tool, unread in read if not _runs_elsewhere(tool) or (searches and _searches_web(tool))]
    return NamedTools(tuple(tools.values()), tuple(absent), web_search, join_fields(*others), names=names)


def model_name(namespace: str, name: str) -> str:
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def read_tool_choice(choice: str | ToolChoiceObject | None, read: NamedTools) -> tuple[ToolChoice, tuple[Tool, ...]]:
    tools = read.tools
    match choice:
        case None:
            return ToolChoice(), tools
        case str():
            mode = choose(choice, MODES, "tool_choice")
        case ToolChoiceObject(type="function" | "custom", name=name):
            if name is None:
                raise MissingParameter("tool_choice.name")
            return ToolChoice(
                "required", _known(model_name(choice.namespace or "", name), read, "tool_choice.name")
            ), tools
        case ToolChoiceObject(type="allowed_tools"):
            mode = choose(choice.mode or "auto", MODES, "tool_choice.mode")
            allowed = {
                _known(reference.name, read, f"tool_choice.tools[{i}].name")
                for i, reference in enumerate(choice.tools or ())
                if reference.name is not None
            }
            if read.web_search is not None and any(_is_search(tool.type) for tool in choice.tools or ()):
                allowed.add(WEB_SEARCH)
            tools = tuple(tool for tool in tools if tool.name in allowed)
        case ToolChoiceObject(type=kind) if read.web_search is not None and _is_search(kind):
            return ToolChoice("required", WEB_SEARCH), tools
        case ToolChoiceObject(type=kind) if kind.startswith(_LEFT_OUT):
            raise UnsupportedValue.at(
                "tool_choice.type",
                f"{show(kind)} does not work here. Leave out 'tool_choice', or choose a function that the client runs.",
            )
        case _:
            raise UnsupportedValue.at(
                "tool_choice.type", f"expected 'function', 'custom' or 'allowed_tools', found {show(choice.type)}."
            )
    if tools:
        return ToolChoice(mode), tools
    if mode == "required" and not read.absent:
        raise BadRequest.at("tool_choice", "a call is required, but there are no 'tools'.")
    return ToolChoice(), tools


def _is_search(kind: str) -> bool:
    """The type has a version, as in `web_search_2025_08_26`."""
    return kind.startswith(WEB_SEARCH)


def _searches_web(definition: ToolDefinition) -> bool:
    return _is_search(definition.type) and definition.external_web_access is not False


def _web_search(filters: SearchFilters) -> WebSearchTool:
    return WebSearchTool(
        name=WEB_SEARCH, allowed_domains=filters.allowed_domains or (), blocked_domains=filters.blocked_domains or ()
    )


def _runs_elsewhere(definition: ToolDefinition) -> bool:
    return definition.type.startswith(_LEFT_OUT) or (
        definition.type == TOOL_SEARCH and definition.execution != "client"
    )


def _flat(definitions: list[OfferedTool], at: str) -> Iterable[tuple[str, str, ToolDefinition]]:
    for i, definition in enumerate(definitions):
        if definition.type != "namespace":
            yield f"{at}[{i}]", "", definition
            continue
        if definition.name is None:
            raise MissingParameter(f"{at}[{i}].name")
        for j, inner in enumerate(definition.tools or ()):
            yield f"{at}[{i}].tools[{j}]", definition.name, inner


def _wire_name(definition: ToolDefinition, namespace: str, at: str) -> WireName:
    match definition.type:
        case "tool_search":
            return WireName("tool_search", TOOL_SEARCH)
        case "function" | "custom" as kind:
            if definition.name is None:
                raise MissingParameter(f"{at}.name")
            return WireName(kind, definition.name, namespace)
    raise UnsupportedValue.at(
        f"{at}.type",
        f"expected 'function', 'custom' or 'namespace', found {show(definition.type)}. Leave it "
        "out, or offer it as a function that the client runs.",
    )


def _tool(name: str, definition: ToolDefinition, at: str, *, deferred: bool) -> Tool:
    grammar = ""
    if definition.type == "custom":
        value, strict = _custom_input(definition.format, f"{at}.format")
        if definition.format is not None and definition.format.syntax == "lark":
            grammar = definition.format.definition or ""
        parameters = {"type": "object", "properties": {INPUT: value}, "required": [INPUT]}
    else:
        parameters = argument_schema(definition.parameters, f"{at}.parameters")
        strict = bool(definition.strict)
    return Tool(
        name=name,
        description=definition.description or "",
        parameters=parameters,
        strict=strict,
        deferred=deferred,
        grammar=grammar,
    )


def _custom_input(form: InputFormat | None, at: str) -> tuple[dict[str, Any], bool]:
    if form is None or form.type == "text":
        return {"type": "string"}, False
    if form.type != "grammar":
        raise BadRequest.at(f"{at}.type", f"expected 'text' or 'grammar', found {show(form.type)}.")
    if form.definition is None:
        raise MissingParameter(f"{at}.definition")
    match form.syntax:
        case "regex":
            return {"type": "string", "pattern": f"^(?:{form.definition})$"}, True
        case "lark":
            return {"type": "string", "description": f"It follows this Lark grammar:\n{form.definition}"}, True
    raise BadRequest.at(f"{at}.syntax", f"expected 'lark' or 'regex', found {show(form.syntax)}.")


def _known(name: str, read: NamedTools, param: str) -> str:
    if name not in read.names:
        raise BadRequest.at(param, f"the request defines no tool {show(name)}.")
    return name
