"""`python -m service.config.schema` prints `anyclauderc.schema.json`, for editors."""

import json
import sys
from typing import Any

import msgspec

from service.config.keys import FILE_KEYS, KEY_TREE, Key, Tree
from service.config.reference import default_in_file
from service.config.values import SIZE_PATTERN


def build_schema() -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of anyclaude (.anyclauderc.json)",
        **_object(KEY_TREE),
    }


def render_schema() -> str:
    return json.dumps(build_schema(), indent=2) + "\n"


def build_example() -> dict[str, Any]:
    return _example(KEY_TREE)


def _example(tree: Tree) -> dict[str, Any]:
    keys = {name: item for name, item in tree.items() if not name.startswith("$")}
    return {name: default_in_file(item) if isinstance(item, Key) else _example(item) for name, item in keys.items()}


def _object(tree: Tree) -> dict[str, Any]:
    properties = {name: _value(item) if isinstance(item, Key) else _object(item) for name, item in tree.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _value(key: Key) -> dict[str, Any]:
    schema = msgspec.json.schema(key.kind)
    schema = _inlined(schema, schema.pop("$defs", {}))
    if key.is_size:
        written = {"type": "string", "pattern": SIZE_PATTERN, "examples": ["2GiB"]}
        schema["anyOf"] = [*schema.pop("anyOf", [_without_help(schema)]), written]
        schema = {name: schema[name] for name in ("description", "anyOf") if name in schema}
    if key.default is not None:
        schema["default"] = default_in_file(key) if key.is_size else key.default
    elif key not in FILE_KEYS:
        schema["default"] = None
    return schema


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**found, **{name: value for name, value in schema.items() if name != "$ref"}}
    return {name: _inlined(value, definitions) for name, value in schema.items()}


def _without_help(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "description"}


if __name__ == "__main__":
    sys.stdout.write(render_schema())
