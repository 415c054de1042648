"""`python -m service.config.reference` prints the table of docs/configuration.md."""

import sys
from collections.abc import Iterator
from typing import Any

from service.config.keys import BACKEND, FILE_KEYS, SETTING_KEYS, Key
from service.config.values import show, show_size


def render_reference() -> str:
    keys = FILE_KEYS + SETTING_KEYS
    below = [key for key in keys if key.path[:2] == BACKEND]
    top = [key for key in keys if key not in below]
    return "\n".join([*_table("key", top), "", *_table(f"key under `{'.'.join(BACKEND)}`", below)]) + "\n"


def _table(heading: str, keys: list[Key]) -> Iterator[str]:
    yield f"| {heading} | default | |"
    yield "|---|---|---|"
    for key in keys:
        name = key.dotted.removeprefix(".".join(BACKEND) + ".")
        yield f"| `{name}` | {_default(key)} | {key.description} |"


def _default(key: Key) -> str:
    return "" if key in FILE_KEYS and key.default is None else f"`{shown_default(key)}`"


def default_in_file(key: Key) -> Any:
    default = key.default
    if key.is_size and default is not None:
        return show_size(default)
    return int(default) if isinstance(default, float) and default.is_integer() else default


def shown_default(key: Key) -> str:
    return show(default_in_file(key))


if __name__ == "__main__":
    sys.stdout.write(render_reference())
