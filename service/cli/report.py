"""`anyclaude doctor --report`: a file for an issue. It has figures and versions, but no content, path or address."""

import os
import platform
import resource
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from service.cli.checks import Result, device, machine, setup
from service.cli.client import ServerClient, Unusable
from service.cli.exits import Failure
from service.cli.launch import on_server, serve_arguments
from service.cli.measurement import Measurement, measure
from service.config.keys import SETTING_KEYS
from service.device.figures import DeviceFigures
from service.device.machine import metal_limit_mib
from service.device.memory import command_buffer_variables, wired_bytes
from service.keep_awake import kept_awake
from service.models.errors import ModelError
from service.models.folder import load_needs
from service.models.location import find_local_model
from service.settings import Settings

PACKAGES = ("anyclaude", "mlx", "mlx-metal", "mlx-cpu", "mlx-lm", "transformers", "tokenizers", "numpy", "starlette")
SHOWN_VARIABLES = ("MLX_MAX_OPS_PER_BUFFER", "MLX_MAX_MB_PER_BUFFER", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SHOWN_SETTINGS = (
    "cache_policy",
    "context_length",
    "dequantize_on_cpu",
    "max_concurrency",
    "parallel",
    "prefill_chunk_tokens",
    "prefix_disk_bytes",
    "prefix_memory_bytes",
    "prompt_lookup",
    "thinking",
    "wired_memory_bytes",
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`variables` and `wired_bytes` are what an engine sets. `settings` are those in force, and `unset` what the server
    chose in place of null. `missing` is the reason if there is no measurement."""

    system: str
    python: str
    versions: dict[str, str]
    figures: DeviceFigures | None
    mac: device.MacFacts | None
    metal_limit_mib: int | None
    wired_bytes: int | None
    open_files: tuple[int, int]
    variables: dict[str, str]
    checks: dict[str, str]
    model: device.ModelNeeds | None
    settings: dict[str, Any] = {}
    unset: dict[str, Any] = {}
    drafts: dict[str, int] = {}
    measurement: Measurement | None = None
    missing: str = ""


def make_report(
    settings: Settings, config: str | None, results: Iterable[Result], progress: Callable[[str], None]
) -> Report:
    """`config` is the file that replaces the usual ones."""
    figures = machine.mlx()[1]
    report = Report(
        system=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
        figures=figures,
        mac=device.read_mac(),
        metal_limit_mib=metal_limit_mib(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        wired_bytes=None if figures is None else wired_by_engine(settings, figures),
        variables=engine_variables(os.environ, figures),
        checks={result.name: result.status for result in results},
        model=None if figures is None else setup.needs_of(settings, figures.kind),
    )
    return _measured(report, settings, serve_arguments(None, config), progress)


def engine_variables(environ: Mapping[str, str], figures: DeviceFigures | None) -> dict[str, str]:
    set_by_engine = {} if figures is None else command_buffer_variables(figures)
    return set_by_engine | {name: environ[name] for name in SHOWN_VARIABLES if name in environ}


def wired_by_engine(settings: Settings, figures: DeviceFigures) -> int | None:
    """Returns None if nothing is wired, or the model is not here."""
    folder = find_local_model(settings.model, settings.home)
    if folder is None or settings.executor == "scripted":
        return None
    try:
        weight_bytes = load_needs(figures.kind, folder).weight_bytes
    except ModelError:
        return None
    return wired_bytes(figures, settings.wired_memory_bytes, weight_bytes)


def _measured(
    report: Report, settings: Settings, arguments: tuple[str, ...], progress: Callable[[str], None]
) -> Report:
    if settings.executor == "mlx" and find_local_model(settings.model, settings.home) is None:
        return msgspec.structs.replace(report, missing="the model is not on this machine yet")
    client = ServerClient.of(settings)
    try:
        with on_server(settings, client, arguments), kept_awake(settings):
            measurement, stats = measure(client, progress), client.stats()
    except Failure as exc:
        return msgspec.structs.replace(report, missing=f"the server did not start (exit code {exc.exit_code})")
    except Unusable as exc:
        return msgspec.structs.replace(report, missing=f"the server did not answer ({type(exc).__name__})")
    shown = [key.dotted for key in SETTING_KEYS if key.field in SHOWN_SETTINGS]
    return msgspec.structs.replace(
        report,
        settings={name: stats.settings[name] for name in shown if name in stats.settings},
        unset={name: stats.unset[name] for name in shown if name in stats.unset},
        drafts=msgspec.to_builtins(stats.engine.drafts),
        measurement=measurement,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
