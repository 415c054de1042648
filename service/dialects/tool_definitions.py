"""What the protocols ask alike of a tool that a client defines: its name, and the schema of its arguments."""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from service.dialects.json_body import check_free_form, show
from service.errors import BadRequest
from service.generation import Tool

REMEMBERED_TOOL_SETS = 8
MAX_REMEMBERED_BYTES = 256 * 1024
MAX_BYTES = 4 * 1024 * 1024

ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}\Z")]


class ToolReader:
    """Reads the JSON text of a request's `tools` by `read`, and remembers the last few sets: they are most of an
    agent's body, and always the same. Who asks with the same tools gets the same object."""

    def __init__(self, read: Callable[[bytes], tuple[Tool, ...]]) -> None:
        self._read = read
        self._remembered = lru_cache(REMEMBERED_TOOL_SETS)(read)

    def __call__(self, raw: bytes) -> tuple[Tool, ...]:
        if len(raw) > MAX_BYTES:
            raise BadRequest(
                f"'tools' is too large: expected at most {MAX_BYTES} bytes, found {len(raw)}.", param="tools"
            )
        return self._remembered(raw) if len(raw) <= MAX_REMEMBERED_BYTES else self._read(raw)


def argument_schema(schema: dict[str, Any] | None, param: str) -> dict[str, Any]:
    """A schema of type object. A tool without arguments may come without one, or with an empty one."""
    if not schema:
        return {"type": "object", "properties": {}}
    check_free_form(schema, param)
    if "type" not in schema:
        return {"type": "object", **schema}
    if schema["type"] != "object":
        raise BadRequest(
            f"Invalid '{param}': expected a JSON Schema of type 'object', found type {show(schema['type'])}.",
            param=param,
        )
    return schema
