"""The working folder's `.anyclauderc.json` may come with a cloned repository. The user approves its content if no rule
(`service.settings.Harmless`) allows its values."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from service.config.address import is_loopback, parse_base_url
from service.config.keys import SETTING_KEYS
from service.config.layers import Layer
from service.models.names import DEMO, HUB_NAME
from service.settings import Harmless
from service.storage import open_regular, write_file

RULES = {key.field: key.harmless for key in SETTING_KEYS}
# Aliases lead to `models`; an adapter and a draft model fit one model. They are left out with it.
NEEDED = {"aliases": "models", "adapter": "model", "draft_model": "model"}
ADDRESS = ("host", "port", "base_url")


class Unapproved(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the file at `path` that need approval, and all values in force without it, by field."""

    path: Path
    content: bytes
    asked: Layer
    instead: Layer


# Returns True if the user approves.
Ask = Callable[[Unapproved], bool]


def decline(_: Unapproved) -> bool:
    return False


class Approvals:
    """One file below `home` lists approved paths with the SHA-256 of their contents."""

    def __init__(self, home: Path) -> None:
        self._file = home / "approved.json"

    def cover(self, path: Path, content: bytes) -> bool:
        return self._read().get(_name(path)) == _digest(content)

    def add(self, path: Path, content: bytes) -> None:
        self._write({**self._read(), _name(path): _digest(content)})

    def remove(self, path: Path) -> bool:
        """False if there was nothing to remove."""
        approved = self._read()
        if approved.pop(_name(path), None) is None:
            return False
        self._write(approved)
        return True

    def _read(self) -> dict[str, str]:
        try:
            with open_regular(self._file) as file:
                return msgspec.json.decode(file.read(), type=dict[str, str])
        except (OSError, ValueError, RecursionError):  # an unreadable file approves nothing
            return {}

    def _write(self, approved: dict[str, str]) -> None:
        write_file(self._file, msgspec.json.format(msgspec.json.encode(approved), indent=2))


def values_to_approve(layer: Layer, merge: Callable[[Layer], Layer], home: Path) -> Layer:
    """Returns values that change something and are not harmless. `merge` gives the values in force with another layer.
    `home` is anyclaude's."""
    without, full = merge({}), merge(layer)
    changed = {field: given for field, given in layer.items() if full[field].value != without[field].value}
    asked = {
        field: given
        for field, given in changed.items()
        if RULES[field] is not Harmless.KEY_OF_LOOPBACK and not is_harmless(RULES[field], given.value, home)
    }
    asked |= {field: changed[field] for field, needed in NEEDED.items() if field in changed and needed in asked}
    # A key is judged last, because its rule depends on the addresses: where it is sent and who could use it.
    kept = merge({field: given for field, given in layer.items() if field not in asked})
    if "api_key" not in layer:
        # The user's key stays with the address of its file, so the server would require the default key instead.
        if without["require_api_key"].value and kept["api_key"].value != without["api_key"].value:
            asked |= {field: layer[field] for field in ADDRESS if field in layer}
        return asked
    on_loopback = is_loopback(kept["host"].value) and _is_loopback_url(kept["base_url"].value)
    if "base_url" in asked or not on_loopback:
        asked |= {f: given for f, given in changed.items() if RULES[f] is Harmless.KEY_OF_LOOPBACK}
    return asked


def is_harmless(rule: Harmless, value: object, home: Path) -> bool:
    match rule, value:
        case Harmless.ANY, _:
            return True
        case Harmless.TRUE, bool():
            return value
        case Harmless.LOOPBACK, str():
            return is_loopback(value) or _is_loopback_url(value)
        case Harmless.ON_THIS_MACHINE, str() | None:
            return value is None or _is_on_this_machine(value, home)
        case Harmless.OWN_STORES, tuple():
            return all(_is_own_store(url, home) for url in value)
    return False


def _is_loopback_url(url: str) -> bool:
    try:
        return not url or is_loopback(parse_base_url(url).host)
    except ValueError:
        return False


def _is_on_this_machine(model: str, home: Path) -> bool:
    """True for a missing path too, because only a hub id is fetched."""
    if model == DEMO or not HUB_NAME.fullmatch(model):
        return True
    # Unlike `Path`, `os.path` has no error for a name that is too long, or for a loop of links.
    return os.path.exists(model) or os.path.isfile(home / "models" / model / "config.json")


def _is_own_store(url: str, home: Path) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return True
    path = unquote(parts.path)
    folder = Path.home() / path.lstrip("/") if parts.netloc == "~" else Path(path)
    own = parts.scheme == "disk" and parts.netloc in ("", "~")
    return own and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(home / "cache"))


def _name(path: Path) -> str:
    # A folder's name may have bytes that are not UTF-8.
    return str(path).encode(errors="backslashreplace").decode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
