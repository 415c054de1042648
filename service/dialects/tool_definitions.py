from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from service.dialects.json_body import check_free_form, show
from service.errors import BadRequest

R = TypeVar("R")

REMEMBERED_TOOL_SETS = 8
MAX_REMEMBERED_BYTES = 256 * 1024
MAX_BYTES = 4 * 1024 * 1024

ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}\Z")]


class ToolReader(Generic[R]):
    """Decodes the JSON text of a request's `tools` with `read`. It remembers the last few sets, which are most of an
    agent's body and never change. Requests with the same tools share one object."""

    def __init__(self, read: Callable[[bytes], R]) -> None:
        self._read = read
        self._remembered = lru_cache(REMEMBERED_TOOL_SETS)(read)

    def __call__(self, raw: bytes) -> R:
        if len(raw) > MAX_BYTES:
            raise BadRequest(
                f"'tools' is too large: expected at most {MAX_BYTES} bytes, found {len(raw)}.", param="tools"
            )
        return self._remembered(raw) if len(raw) <= MAX_REMEMBERED_BYTES else self._read(raw)


def argument_schema(schema: dict[str, Any] | None, param: str) -> dict[str, Any]:
    """Returns a schema of type object, also for a tool without one. Raises `BadRequest` for another type."""
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
