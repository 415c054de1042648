from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from service.dialects.base import WebSearchTool
from service.dialects.body_fields import NO_OTHER_FIELDS, FieldReader, OtherFields
from service.dialects.json_body import check_free_form, decode, show
from service.errors import BadRequest
from service.generation import Tool

R = TypeVar("R")

REMEMBERED_TOOL_SETS = 8
MAX_REMEMBERED_BYTES = 256 * 1024
MAX_BYTES = 4 * 1024 * 1024

_SEARCH = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
_SEARCH_DESCRIPTION = "Searches the web and returns titles, addresses and excerpts of pages."

ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}\Z")]


D = TypeVar("D", bound=msgspec.Struct)

_DEFINITIONS = msgspec.json.Decoder(list[msgspec.Raw] | None)


def read_definitions(reader: FieldReader[D], raw: bytes, at: str = "tools") -> list[tuple[D, OtherFields]]:
    """Raises `BadRequest`."""
    definitions = decode(_DEFINITIONS, raw, at=at) or ()
    return [reader.read(bytes(definition), at=f"{at}[{i}]") for i, definition in enumerate(definitions)]


class ReadTools(msgspec.Struct, frozen=True):
    """`absent` are the names of omitted tools. `web_search` is one of the `tools`. `others` are fields of
    the other definitions that are not read."""

    tools: tuple[Tool, ...] = ()
    absent: tuple[str, ...] = ()
    web_search: WebSearchTool | None = None
    others: OtherFields = NO_OTHER_FIELDS

    @property
    def notice(self) -> str:
        """A sentence for the system prompt; empty if no tool was omitted."""
        if not self.absent:
            return ""
        return f"These tools do not work here: {', '.join(self.absent)}. Answer without them, and mention that."


class ToolReader(Generic[R]):
    """Decodes the JSON text of a request's `tools` with `read`. It remembers the last few sets, because an agent's
    never change. Requests with the same tools share one object."""

    def __init__(self, read: Callable[[bytes], R]) -> None:
        self._read = read
        # The last used is the first. To compare texts is much faster than to hash a new one, as a dictionary would.
        self._remembered: list[tuple[bytes, R]] = []

    def __call__(self, raw: bytes) -> R:
        if len(raw) > MAX_BYTES:
            raise BadRequest(
                f"'tools' is too large: expected at most {MAX_BYTES} bytes, found {len(raw)}.", param="tools"
            )
        remembered = self._remembered
        for i, (text, tools) in enumerate(remembered):
            if text == raw:
                if i:
                    remembered.insert(0, remembered.pop(i))
                return tools
        tools = self._read(raw)
        if len(raw) <= MAX_REMEMBERED_BYTES:
            remembered.insert(0, (raw, tools))
            del remembered[REMEMBERED_TOOL_SETS:]
        return tools


def search_tool(name: str) -> Tool:
    """Returns the tool that the model sees where this server searches the web."""
    return Tool(name=name, description=_SEARCH_DESCRIPTION, parameters=_SEARCH)


def argument_schema(schema: dict[str, Any] | None, param: str) -> dict[str, Any]:
    """Returns a schema of type object, also for a tool without one. Raises `BadRequest` for another type."""
    if not schema:
        return {"type": "object", "properties": {}}
    check_free_form(schema, param)
    if "type" not in schema:
        return {"type": "object", **schema}
    if schema["type"] != "object":
        raise BadRequest.at(param, f"expected a JSON Schema of type 'object', found type {show(schema['type'])}.")
    return schema
