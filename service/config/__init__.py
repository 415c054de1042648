"""Reads the configuration: flags over environment over `.anyclauderc.json` over defaults.

Two files are read where both exist: the working folder's keys win over those of the home folder, key by key; a list is
replaced, not joined. `--config FILE` is read instead of both.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from service.config.address import Address, base_url, is_loopback, parse_base_url
from service.config.errors import ConfigError
from service.config.keys import SETTING_KEYS
from service.config.layers import Given, Layer, Origin, environment_layer, file_layer, flag_layer
from service.settings import SamplingDefaults, Settings

__all__ = [
    "DEFAULT_KEY",
    "FILE_NAME",
    "Address",
    "ConfigError",
    "Origin",
    "Origins",
    "base_url",
    "config_files",
    "load_settings",
    "parse_base_url",
    "server_address",
]

FILE_NAME = ".anyclauderc.json"
DEFAULT_KEY = "vllm-mlx"
Origins = dict[str, Origin]
"""By the dotted field of `Settings`: `port`, `sampling.top_p`."""


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path, home: Path
) -> tuple[Settings, Origins]:
    """What is in force, and where it came from. `flags` are by field of `Settings`, plus `config`, a path; `home` is
    the user's home folder. Raises ConfigError."""
    flags = dict(flags)
    chosen = flags.pop("config", None)
    paths = [Path(str(chosen))] if chosen is not None else config_files(cwd, home)
    layers = [file_layer(path) for path in paths]
    layers += [environment_layer(environ), flag_layer(flags)]
    given = _merge(layers)
    for field in ("home", "model"):
        if field in given and isinstance(given[field].value, str):
            given[field] = msgspec.structs.replace(given[field], value=_expand_user(given[field].value, home))
    settings = _build(given, cwd)
    _check_exposure(settings, given)
    return settings, {key.field: given[key.field].origin for key in SETTING_KEYS}


def config_files(cwd: Path, home: Path) -> list[Path]:
    """Those that exist, the weakest first."""
    candidates = dict.fromkeys([home / FILE_NAME, cwd / FILE_NAME])
    return [path for path in candidates if path.exists()]


def server_address(settings: Settings) -> Address:
    """Where clients find the server. `load_settings` has checked it."""
    return parse_base_url(settings.base_url)


def _merge(layers: list[Layer]) -> Layer:
    """The strongest layer last. `base_url` and `host` with `port` say the same thing in two ways: a local URL sets the
    two, and either of the two, said by a stronger layer, takes the place of a weaker layer's local URL."""
    merged: Layer = {}
    for layer in layers:
        layer = dict(layer)
        if "base_url" in layer:
            layer = _implied_by_url(layer, merged) | layer
        elif layer.keys() & {"host", "port"} and _is_local_url(merged.get("base_url")):
            del merged["base_url"]
        merged |= layer
    for key in SETTING_KEYS:
        if key.field not in merged:
            merged[key.field] = Given(key.default, Origin("default"))
    if not merged["base_url"].value:
        url = base_url(merged["host"].value, merged["port"].value)
        merged["base_url"] = Given(url, merged["port"].origin)
    return merged


def _is_local_url(given: Given | None) -> bool:
    return given is not None and bool(given.value) and parse_base_url(given.value).local


def _implied_by_url(layer: Layer, weaker: Layer) -> Layer:
    """The host and port that a layer's local URL stands for. A host that was chosen before stays: a server that
    listens on every address is reached by a loopback URL too."""
    given = layer["base_url"]
    if not given.value:
        return {}
    try:
        address = parse_base_url(given.value)
    except ValueError as exc:
        raise ConfigError(given.origin.where, given.origin.key, str(exc)) from None
    if not address.local:
        return {}
    if "port" in layer and layer["port"].value != address.port:
        port = layer["port"].value
        problem = f"expected the port of this server, {port}, found {given.value}. Leave one of the two out."
        raise ConfigError(given.origin.where, given.origin.key, problem)
    implied = {"port": Given(address.port, given.origin)}
    if "host" not in weaker:
        implied["host"] = Given("127.0.0.1" if address.host == "localhost" else address.host, given.origin)
    return implied


def _build(given: Layer, cwd: Path) -> Settings:
    values = {field: item.value for field, item in given.items()}
    prefix = "sampling."
    sampling = {field.removeprefix(prefix): values.pop(field) for field in list(values) if field.startswith(prefix)}
    values["home"] = cwd / values["home"]
    return Settings(**values, sampling=SamplingDefaults(**sampling))


def _expand_user(text: str, home: Path) -> str:
    return str(home / text[2:]) if text.startswith("~/") else str(home) if text == "~" else text


def _check_exposure(settings: Settings, given: Layer) -> None:
    """A server that others can reach must ask for a key, and for one that is not printed in every manual."""
    if is_loopback(settings.host):
        return
    origin = given["host"].origin
    if not settings.require_api_key:
        problem = (
            f'expected a loopback address, found "{settings.host}", which others can reach. '
            "Set requireApiKey to true and apiKey to a secret, or listen on 127.0.0.1."
        )
        raise ConfigError(origin.where, origin.key, problem)
    if settings.api_key == DEFAULT_KEY:
        problem = (
            f'others can reach "{settings.host}", and apiKey is the default that everybody knows. '
            "Set apiKey to a secret, or listen on 127.0.0.1."
        )
        raise ConfigError(origin.where, origin.key, problem)
