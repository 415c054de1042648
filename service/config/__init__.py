"""The configuration: options over environment over `.anyclauderc.json` over defaults. The working folder's file, if
trusted, overrides the home folder's key by key. `--config FILE` replaces both.

- `keys`: the file's keys, derived from `Settings`; `values`: reads and shows a value
- `layers`: file, environment and options as values with origins; `ConfigError`
- `trust`: rules and approvals for the working folder's file
- `address`: the server's address; `redaction`: values without secrets; `edit`: writes a file
- `schema`, `reference`: the JSON Schema and the docs' table
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from service.config.address import Address, base_url, is_loopback, parse_base_url
from service.config.keys import SETTING_KEYS
from service.config.layers import (
    ConfigError,
    Given,
    Layer,
    Origin,
    environment_layer,
    file_layer,
    flag_layer,
    read_file,
)
from service.config.trust import Approvals, Ask, Unapproved, decline, values_to_approve
from service.models.names import SERVED_ALIASES
from service.settings import ModelSettings, SamplingDefaults, Settings

__all__ = [
    "DEFAULT_KEY",
    "FILE_NAME",
    "Address",
    "Approvals",
    "ConfigError",
    "Configuration",
    "Origin",
    "Origins",
    "Unapproved",
    "base_url",
    "load_configuration",
    "parse_base_url",
    "server_address",
]

FILE_NAME = ".anyclauderc.json"
DEFAULT_KEY = "vllm-mlx"
# Keys are fields of `Settings`: `port`, `sampling.top_p`.
Origins = dict[str, Origin]


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """`files` were read, the strongest first. `unapproved` values of the working folder's file are not in force."""

    settings: Settings
    origins: Origins
    files: tuple[Path, ...]
    approvals: Approvals
    unapproved: Unapproved | None = None


def load_configuration(
    flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path, home: Path, ask: Ask = decline
) -> Configuration:
    """`flags` are by field of `Settings`, plus the path `config`. `ask` decides on values that need approval, once.
    Raises ConfigError."""
    flags = dict(flags)
    chosen = flags.pop("config", None)
    trusted, untrusted = (Path(str(chosen)), None) if chosen is not None else _usual_files(cwd, home)
    below = file_layer(trusted, read_file(trusted)) if trusted is not None else {}
    above = [environment_layer(environ), flag_layer(flags)]

    def merge(layer: Layer) -> Layer:
        return _merge([below, layer], above)

    # A relative home lies in the working folder, where a repository could bring its own approvals.
    own_home = home / _expand_user(merge({})["home"].value, home)
    approvals, layer, unapproved = Approvals(own_home), {}, None
    if untrusted is not None:
        content = read_file(untrusted)
        layer = file_layer(untrusted, content)
        asked = values_to_approve(layer, merge, own_home)
        unapproved = Unapproved(path=untrusted, content=content, asked=asked, instead=merge({})) if asked else None
    if unapproved is not None and _is_approved(unapproved, approvals, ask):
        unapproved = None
    if unapproved is not None:
        layer = {field: given for field, given in layer.items() if field not in unapproved.asked}
    given = merge(layer)
    settings = _build(given, cwd, home)
    _check_exposure(settings, given)
    _check_aliases(settings, given)
    _check_web_search(settings, given)
    return Configuration(
        settings=settings,
        origins={key.field: given[key.field].origin for key in SETTING_KEYS},
        files=tuple(path for path in (untrusted, trusted) if path is not None),
        approvals=approvals,
        unapproved=unapproved,
    )


def _is_approved(unapproved: Unapproved, approvals: Approvals, ask: Ask) -> bool:
    if approvals.cover(unapproved.path, unapproved.content):
        return True
    if not ask(unapproved):
        return False
    approvals.add(unapproved.path, unapproved.content)
    return True


def _usual_files(cwd: Path, home: Path) -> tuple[Path | None, Path | None]:
    trusted, untrusted = home / FILE_NAME, cwd / FILE_NAME
    if not trusted.exists():
        return None, None if _is_same(cwd, home) or not untrusted.exists() else untrusted
    return trusted, None if not untrusted.exists() or _is_same(trusted, untrusted) else untrusted


def _is_same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def server_address(settings: Settings) -> Address:
    return parse_base_url(settings.base_url)


def _merge(files: list[Layer], above: list[Layer]) -> Layer:
    merged = _overlay([*files, *above])
    # A key is only sent where its file alone would send it: the address of another file might lead anywhere.
    with_keys = [file for file in reversed(files) if "api_key" in file]
    if not with_keys:
        return merged
    for file in with_keys:
        if _overlay([file, *above])["base_url"].value == merged["base_url"].value:
            return merged | {"api_key": file["api_key"]}
    other = with_keys[0]["api_key"].origin.where
    why = f"default, because the key in {other} is not sent to the address of another file"
    return merged | {"api_key": Given(DEFAULT_KEY, Origin("default", why))}


def _overlay(layers: list[Layer]) -> Layer:
    """Later layers win. A stronger layer's host or port replaces that of a local `base_url`."""
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
    """Returns the host and port of a layer's local URL. A weaker layer's host stays if it is every address, which
    includes loopback."""
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


def _build(given: Layer, cwd: Path, home: Path) -> Settings:
    values = {field: item.value for field, item in given.items()}
    for field in ("home", "model", "adapter"):
        if values[field] is not None:
            values[field] = _expand_user(values[field], home)
    values["models"] = {name: _expanded(model, home) for name, model in values["models"].items()}
    prefix = "sampling."
    sampling = {field.removeprefix(prefix): values.pop(field) for field in list(values) if field.startswith(prefix)}
    values["home"] = cwd / values["home"]
    return Settings(**values, sampling=SamplingDefaults(**sampling))


def _expanded(model: ModelSettings, home: Path) -> ModelSettings:
    paths = {field: getattr(model, field) for field in ("model", "adapter", "draft_model")}
    expanded = {field: _expand_user(path, home) for field, path in paths.items() if path is not None}
    return msgspec.structs.replace(model, **expanded)


def _check_aliases(settings: Settings, given: Layer) -> None:
    for pattern, name in settings.aliases.items():
        if name not in settings.models and name not in SERVED_ALIASES:
            known = ", ".join(f'"{model}"' for model in (*settings.models, "default"))
            origin = given["aliases"].origin
            problem = f'expected "{pattern}" to lead to a name in models ({known}), found "{name}".'
            raise ConfigError(origin.where, origin.key, problem)


def _check_web_search(settings: Settings, given: Layer) -> None:
    if not settings.web_search_url:
        return
    try:
        parse_base_url(settings.web_search_url)
    except ValueError:
        origin, found = given["web_search_url"].origin, settings.web_search_url
        problem = f'expected the address of a SearXNG server, such as "http://127.0.0.1:8888", found "{found}".'
        raise ConfigError(origin.where, origin.key, problem) from None


def _expand_user(text: str, home: Path) -> str:
    return str(home / text[2:]) if text.startswith("~/") else str(home) if text == "~" else text


def _check_exposure(settings: Settings, given: Layer) -> None:
    """A server that others can reach must require a key that is not public."""
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
            f'others can reach "{settings.host}", and everybody knows the apiKey ({given["api_key"].origin}). '
            "Set apiKey to a secret, or listen on 127.0.0.1."
        )
        raise ConfigError(origin.where, origin.key, problem)
