import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.options import config_option, url_option
from service.config import server_address
from service.device.figures import DeviceFigures
from service.settings import Settings

SLOW_WITHOUT_GPU = "Without a GPU, MLX is slow: the largest models here are for Macs."


@click.group("models", short_help="Fetch, list, remove, recommend, load and unload models.")
def command() -> None:
    """Fetch, list, remove and recommend models. 'anyclaude serve NAME' serves one."""


@command.command("pull")
@click.argument("name")
@config_option
def pull(name: str, config: str | None) -> None:
    """Fetch the model NAME from Hugging Face, or 'demo'. An interrupted download continues."""
    with model_required():
        folder = fetch_model(name, read_configuration({"config": config}).settings.home)
    click.echo(f"{name} is in {folder}. To serve it: anyclaude serve {name}")


def fetch_model(name: str | None, home: Path) -> Path:
    """Shows the progress on stderr. Raises `ModelError`."""
    from rich.console import Console

    from service.models.location import resolve_model
    from service.models.progress import ConsoleProgress

    progress = ConsoleProgress(Console(stderr=True))
    try:
        return resolve_model(name, home, progress)
    finally:
        progress.finish()


@contextmanager
def model_required(name: str | None = None) -> Iterator[None]:
    """Ends the command if a model cannot be used. `name` is that of several."""
    from service.models.errors import ModelError

    try:
        yield
    except ModelError as exc:
        raise Failure(Exit.NO_MODEL, f"{name}: {exc}" if name else str(exc)) from None


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@config_option
@url_option
def list_models(as_json: bool, config: str | None, url: str | None) -> None:
    """List the MLX models on this machine (anyclaude's, Hugging Face's, LM Studio's), and those of the server."""
    from service.models.inventory import installed_models

    settings = read_configuration({"config": config, "base_url": url}).settings
    installed = list(installed_models(settings.home, Path.home()))
    configured, states = _configured(settings), _states(settings)
    if as_json:
        on_disk = [{"name": m.name, "path": str(m.path), "bytes": m.size_bytes, "source": m.source} for m in installed]
        click.echo(json.dumps({"installed": on_disk, "configured": configured, "served": states}, indent=2))
        return
    width = max((len(name) for name in (*(model.name for model in installed), *configured, *states)), default=0)
    for model in installed:
        mark = "*" if {model.name, str(model.path)} & set(configured.values()) else " "
        click.echo(f"{mark} {model.name:{width}}  {model.size_bytes / 1e9:6.2f} GB  {model.source}")
    if installed:
        click.echo("* is configured.")
    else:
        click.echo("No MLX model is on this machine. 'anyclaude models recommend' lists some.")
    if states:
        _print_named(f"Served at {server_address(settings).root}:", states, width)
    elif settings.models:
        _print_named("Configured, and not served now:", configured, width)


def _print_named(title: str, values: dict[str, str], width: int) -> None:
    click.echo(f"\n{title}")
    for name, value in values.items():
        click.echo(f"  {name:{width}}  {value}")


def _configured(settings: Settings) -> dict[str, str]:
    models = {name: model.model for name, model in settings.models.items()}
    default = settings.model or (None if models else "demo")
    return models if default is None else {default: default, **models}


def _states(settings: Settings) -> dict[str, str]:
    """Empty if no server answers."""
    from service.cli.client import ServerClient, Unusable

    try:
        models = ServerClient.of(settings).health().models
    except Unusable:
        return {}
    return {
        model.name: "loaded" if model.model_loaded else "not loaded" if model.status == "healthy" else model.status
        for model in models
    }


@command.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def remove(name: str, yes: bool, config: str | None) -> None:
    """Remove the model NAME from anyclaude's own folder. Models of other programs stay."""
    from service.models.inventory import installed_models

    settings = read_configuration({"config": config}).settings
    found = {model.name: model for model in installed_models(settings.home, Path.home())}
    model = found.get(name)
    if model is None:
        raise Failure(Exit.NO_MODEL, f"No model {name} is on this machine. 'anyclaude models list' lists them.")
    if model.source != "anyclaude":
        raise Failure(Exit.FAILED, f"{name} belongs to {model.source} ({model.path}): remove it there.")
    if not yes:
        click.confirm(f"Remove {model.path} ({model.size_bytes / 1e9:.2f} GB)?", abort=True)
    shutil.rmtree(model.path)
    click.echo(f"Removed {name}.")


@command.command("load")
@click.argument("name")
@config_option
@url_option
def load(name: str, config: str | None, url: str | None) -> None:
    """Load the model NAME of a running server now, and not at its first request."""
    _tell_server(name, "load", {"config": config, "base_url": url})
    click.echo(f"{name} is loaded.")


@command.command("unload")
@click.argument("name")
@config_option
@url_option
def unload(name: str, config: str | None, url: str | None) -> None:
    """Unload the model NAME of a running server, which gives its memory back. Its next request loads it again."""
    _tell_server(name, "unload", {"config": config, "base_url": url})
    click.echo(f"{name} is unloaded.")


def _tell_server(name: str, action: str, flags: dict[str, object]) -> None:
    from urllib.parse import quote

    from service.cli.client import Refused, ServerClient, server_required

    settings = read_configuration(flags).settings
    client = ServerClient.of(settings)
    with server_required(client):
        try:
            client.post(f"/v1/models/{quote(name)}/{action}", b"{}", settings.startup_timeout_seconds)
        except Refused as exc:
            raise Failure(Exit.FAILED, f"{name} was not {action}ed: {exc}") from None


@command.command("recommend")
def recommend() -> None:
    """List models for coding agents, and mark the largest one that suits this machine."""
    from service.device.card import read_engines_device
    from service.models.recommended import RECOMMENDED, fitting

    figures = read_engines_device()
    best = next(iter(fitting(figures)), None)
    click.echo(f"{memory_for_models(figures)}\n")
    click.echo(f"  {'MODEL':46}  {'DOWNLOAD':>8}  {'MEMORY':>7}  {'CONTEXT':>7}  GOOD FOR")
    for model in RECOMMENDED:
        mark = "*" if model == best else " "
        sizes = f"{model.size_bytes / 1e9:5.1f} GB  {model.needed_bytes / 1e9:4.0f} GB  {model.context_length:7,}"
        click.echo(f"{mark} {model.id:46}  {sizes}  {model.good_for}")
    if best is not None:
        click.echo(f"\n* suits this machine. To fetch it: anyclaude models pull {best.id}")
    if figures.kind == "cpu":
        click.echo(SLOW_WITHOUT_GPU)


def memory_for_models(figures: DeviceFigures) -> str:
    from service.models.recommended import most_usable_bytes

    owner = "This machine's card" if figures.card_total else "This machine"
    memory, usable = figures.card_total or figures.total, most_usable_bytes(figures)
    return f"{owner} has {memory / 1e9:.0f} GB of memory; models can use {usable / 1e9:.0f} GB."
