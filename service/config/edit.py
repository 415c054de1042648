"""Writes a configuration file when the user has answered."""

import codecs
from pathlib import Path
from typing import Any

import msgspec

from service.config.keys import BACKEND
from service.storage import write_file


def write_first_choice(file: Path, model: str) -> None:
    """Sets the model in `file`, and `maxConcurrency` to `auto` unless it is set. The file may be missing, but not
    wrong."""
    try:
        document: dict[str, Any] = msgspec.json.decode(file.read_bytes().removeprefix(codecs.BOM_UTF8))
    except FileNotFoundError:
        document = {}
    keys = document
    for name in BACKEND:
        keys = keys.setdefault(name, {})
    keys["model"] = model
    keys.setdefault("maxConcurrency", "auto")
    write_file(file.resolve(), msgspec.json.format(msgspec.json.encode(document)) + b"\n")
