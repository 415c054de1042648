"""Values with their origins: file, environment and options."""

import codecs
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from cache_backends import InvalidBackendUrl, open_backend
from service.config.keys import KEY_TREE, SETTING_KEYS, Key, Tree, did_you_mean
from service.config.values import BadValue, read_value, show
from service.models.names import SERVED_ALIASES
from service.settings import ModelSettings
from service.storage import open_regular

ENVIRONMENT = {
    "VLLM_MLX_URL": "base_url",
    "VLLM_MLX_MODEL": "model",
    "ANYCLAUDE_DEBUG": "debug_level",
    "PROXY_ONLY": "proxy_only",
    "ANYCLAUDE_HOME": "home",
}
MAX_FILE_BYTES = 1024**2
PATHS = ("model", "adapter", "draft_model", "models", "home", "record", "replay", "warm")
_OTHER_OPTIONS = {"model": "MODEL", "base_url": "--url"}
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class ConfigError(Exception):
    """`where` is the file, variable or option. `key` may be empty."""

    def __init__(self, where: str, key: str, problem: str) -> None:
        text = ": ".join(part for part in (where, key, problem) if part)
        # The file's author also chose its characters, which could change what the screen shows.
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))
        self.where = where
        self.key = key
        self.problem = problem


class Origin(msgspec.Struct, frozen=True):
    """`where` is the file, variable or option. `key` is one of a file."""

    kind: Literal["default", "file", "environment", "flag"]
    where: str = ""
    key: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.where or self.kind, self.key) if part)


class Given(msgspec.Struct, frozen=True):
    value: Any
    origin: Origin


# Keys are fields of `Settings`.
Layer = dict[str, Given]


def read_file(path: Path) -> bytes:
    """Raises ConfigError."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(str(path), "", f"cannot be read: {exc.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        problem = "expected at most 1 MiB of configuration, found more. Replace the file, or remove it."
        raise ConfigError(str(path), "", problem)
    return content


def file_layer(path: Path, content: bytes) -> Layer:
    """Raises ConfigError."""
    where = str(path)
    try:
        document = msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as exc:
        raise ConfigError(where, "", f"expected JSON, found something else: {_with_line(str(exc), content)}") from None
    layer: Layer = {}
    for key, value in _walk(document, KEY_TREE, (), where):
        given = _read(key, value, Origin("file", where, key.dotted))
        if key.dotted.endswith(".enabled") and given.value is False:
            raise ConfigError(where, key.dotted, "expected true, found false. There is no other backend to run.")
        if key.field == "model" and given.value in SERVED_ALIASES:
            continue
        if key.field in PATHS:
            given = msgspec.structs.replace(given, value=_from_folder(given.value, path.parent))
        if key.field:
            layer[key.field] = given
    return layer


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """An empty variable counts as unset. Raises ConfigError."""
    layer: Layer = {}
    keys = {key.field: key for key in SETTING_KEYS}
    for variable, field in ENVIRONMENT.items():
        text = environ.get(variable, "").strip()
        if text:
            value = _from_text(text, field)
            if field == "model" and value in SERVED_ALIASES:
                continue
            layer[field] = _read(keys[field], value, Origin("environment", variable))
    return layer


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """`flags` are by field of `Settings`; None is an option that was not given. Raises ConfigError."""
    keys = {key.field: key for key in SETTING_KEYS}
    return {
        field: _read(keys[field], value, Origin("flag", keys[field].option or _OTHER_OPTIONS[field]))
        for field, value in flags.items()
        if value is not None
    }


def _with_line(problem: str, content: bytes) -> str:
    """The decoder counts bytes; editors count lines and columns."""

    def place(match: re.Match[str]) -> str:
        before = content[: int(match[1])].decode(errors="replace")
        return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"

    return re.sub(r"byte (\d+)", place, problem)


def _walk(value: object, tree: Tree, path: tuple[str, ...], where: str) -> Iterator[tuple[Key, object]]:
    dotted = ".".join(path)
    if not isinstance(value, dict):
        raise ConfigError(where, dotted, f"expected an object, found {show(value)}")
    for name, below in value.items():
        known = tree.get(name)
        if known is None:
            problem = f'unknown key "{name}". {did_you_mean(name, list(tree))}'
            raise ConfigError(where, dotted, problem)
        if isinstance(known, Key):
            yield known, below
        else:
            yield from _walk(below, known, (*path, name), where)


def _read(key: Key, value: object, origin: Origin) -> Given:
    try:
        read = read_value(value, key.kind, is_size=key.is_size)
        if key.field == "cache":
            open_backend(read)  # checks the URLs only: a store opens at its first call
    except BadValue as exc:
        found = f"a value of type {type(value).__name__}" if key.secret else exc.found
        raise ConfigError(origin.where, origin.key, f"expected {exc.expected}, found {found}") from None
    except InvalidBackendUrl as exc:
        raise ConfigError(origin.where, origin.key, str(exc)) from None
    return Given(read, origin)


def _from_text(text: str, field: str) -> object:
    if field == "proxy_only":
        return _SWITCH.get(text.lower(), text)
    if field == "debug_level" and re.fullmatch(r"\d{1,3}", text):
        return int(text)
    return text


def _from_folder(value: Any, folder: Path) -> Any:
    """A path such as ./models/x is relative to its file, wherever the command runs."""
    if isinstance(value, str) and re.match(r"\.\.?(/|$)", value):
        return os.path.realpath(folder / value)  # `Path.resolve` raises for a loop of links
    if isinstance(value, ModelSettings):
        paths = {field: _from_folder(getattr(value, field), folder) for field in ("model", "adapter", "draft_model")}
        return msgspec.structs.replace(value, **paths)
    if isinstance(value, dict):
        return {name: _from_folder(item, folder) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_from_folder(item, folder) for item in value)
    return value
