from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import msgspec

from service.config.keys import SETTING_KEYS, Key
from service.config.reference import shown_default

config_option = click.option(
    "--config", type=click.Path(dir_okay=False), help="Read this file instead of .anyclauderc.json."
)
url_option = click.option("--url", help="Where the server is, such as http://localhost:9000; else VLLM_MLX_URL.")


def setting_options(function: Callable[..., None]) -> Callable[..., None]:
    """The command gets the given values by field as `flags`."""
    fields = {_parameter(key): key.field for key in SETTING_KEYS if key.option is not None}

    @wraps(function)
    def run(**given: Any) -> None:
        flags = {field: given.pop(parameter) for parameter, field in fields.items()}
        function(flags={field: value for field, value in flags.items() if value not in (None, ())}, **given)

    command: Callable[..., None] = run
    for key in reversed(SETTING_KEYS):
        if key.option is not None:
            command = _option(key, key.option)(command)
    return command


def _parameter(key: Key) -> str:
    return key.field.replace(".", "_")


def _option(key: Key, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    info = msgspec.inspect.type_info(key.kind)
    if isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    attributes: dict[str, Any] = {"default": None}
    for kind in kinds:
        match kind:
            case msgspec.inspect.BoolType():
                name = f"{name}/--no-{name.removeprefix('--')}"
            case msgspec.inspect.VarTupleType():
                attributes = {"multiple": True, "metavar": "TEXT"}
            case msgspec.inspect.LiteralType():
                attributes["metavar"] = "[" + "|".join(str(value) for value in sorted(kind.values, key=str)) + "]"
                if all(isinstance(value, int) for value in kind.values):
                    attributes["type"] = int
            case msgspec.inspect.IntType() if key.is_size:
                attributes["metavar"] = "SIZE"
            case msgspec.inspect.IntType():
                attributes["type"] = int
            case msgspec.inspect.FloatType():
                attributes["type"] = float
    default = "" if key.default in (None, ()) else f"  [default: {shown_default(key)}]"
    return click.option(name, _parameter(key), help=f"{key.description}{default}", **attributes)
