"""Every key of `.anyclauderc.json` as a table, made of the same keys that the reader checks.

`python -m service.config.reference` prints it; it stands in `docs/configuration.md`.
"""

import sys
from collections.abc import Iterator

import msgspec

from service.config.keys import BACKEND, FILE_KEYS, SETTING_KEYS, Key
from service.config.values import show, show_size


def render_reference() -> str:
    """In Markdown."""
    keys = FILE_KEYS + SETTING_KEYS
    below = [key for key in keys if key.path[:2] == BACKEND]
    top = [key for key in keys if key not in below]
    return "\n".join([*_table("key", top), "", *_table(f"key under `{'.'.join(BACKEND)}`", below)]) + "\n"


def _table(heading: str, keys: list[Key]) -> Iterator[str]:
    yield f"| {heading} | default | |"
    yield "|---|---|---|"
    for key in keys:
        name = key.dotted.removeprefix(".".join(BACKEND) + ".")
        yield f"| `{name}` | {_default(key)} | {msgspec.json.schema(key.kind)['description']} |"


def _default(key: Key) -> str:
    """As one would write it in the file; nothing for a key that sets nothing."""
    if key in FILE_KEYS and key.default is None:
        return ""
    return f"`{show(show_size(key.default) if key.is_size and key.default is not None else key.default)}`"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
