"""What the protocols ask alike of a tool that a client defines: its name, and the schema of its arguments."""

from typing import Annotated, Any

import msgspec

from service.dialects.json_body import check_depth, show
from service.errors import BadRequest

ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}\Z")]


def argument_schema(schema: dict[str, Any] | None, param: str) -> dict[str, Any]:
    """A schema of type object. A tool without arguments may come without one, or with an empty one."""
    if not schema:
        return {"type": "object", "properties": {}}
    check_depth(schema, param)
    if "type" not in schema:
        return {"type": "object", **schema}
    if schema["type"] != "object":
        raise BadRequest(
            f"Invalid '{param}': expected a JSON Schema of type 'object', found type {show(schema['type'])}.",
            param=param,
        )
    return schema
