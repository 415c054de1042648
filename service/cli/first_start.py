"""The first start of an agent: chooses a model, fetches it, tries it, and writes it to the configuration."""

import os
from pathlib import Path

import click
import msgspec
from rich.console import Console

from service.cli.client import ServerClient, Unusable
from service.cli.configuration import in_terminal
from service.cli.exits import Exit, Failure
from service.config import FILE_NAME, server_address
from service.config.edit import write_first_choice
from service.device.figures import DeviceFigures
from service.settings import Settings

SHOWN_FITS = 3
TRIAL_SECONDS = 300.0
TRIAL_TOOL = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a file and return its content.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}
TRIAL = {
    "messages": [{"role": "user", "content": "Read the file notes.txt with the tool read_file."}],
    "tools": [TRIAL_TOOL],
    "temperature": 0,
    "max_tokens": 1024,
}


class _TriedFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _TriedCall(msgspec.Struct, frozen=True):
    function: _TriedFunction


class _TriedMessage(msgspec.Struct, frozen=True):
    tool_calls: list[_TriedCall] | None = None


class _TriedChoice(msgspec.Struct, frozen=True):
    message: _TriedMessage


class _TriedAnswer(msgspec.Struct, frozen=True):
    choices: list[_TriedChoice]


class _ReadFile(msgspec.Struct, frozen=True):
    path: str


def lacks_model(settings: Settings) -> bool:
    """True if a server that is started here would serve the demo model."""
    served = settings.model or settings.models or settings.replay
    return not served and settings.executor == "mlx" and server_address(settings).local


def choose_model(settings: Settings) -> str:
    """Asks the user for a model and fetches it. Without a terminal, ends the command with what to do."""
    from service.cli.models import fetch_model, model_required
    from service.device.card import read_engines_device
    from service.models.location import find_local_model
    from service.models.recommended import present_refusal

    if not in_terminal():
        advice = (
            "Run 'anyclaude' in a terminal to choose one, or set VLLM_MLX_MODEL to a folder or hub id "
            "('anyclaude models recommend' lists some)."
        )
        raise Failure(Exit.NO_MODEL, f"No model is configured. {advice}")
    figures = read_engines_device()
    name = _ask(_offer(settings.home, figures))
    if find_local_model(name, settings.home) is None:
        if (refusal := present_refusal(name, figures)) is not None:
            click.echo(f"Note: now this machine could not load {name}: {refusal}", err=True)
        click.confirm(f"Download {name}? An interrupted download continues.", default=True, abort=True, err=True)
    with model_required():
        folder = fetch_model(name, settings.home)
    return str(folder) if os.path.exists(os.path.expanduser(name)) else name


def keep_model(name: str, client: ServerClient) -> None:
    """Tries the served model, and writes `name` to the home folder's configuration."""
    with Console(stderr=True).status("Trying a tool call"):
        works = calls_tool(client)
    if works:
        click.echo("It loads, and it calls tools.", err=True)
    else:
        click.echo("It loads, but it did not call a tool when it was asked to. Agents need that.", err=True)
        click.confirm("Use it all the same?", abort=True, err=True)
    file = Path.home() / FILE_NAME
    write_first_choice(file, name)
    click.echo(f"{file} now names it. Another model: change it there, or set VLLM_MLX_MODEL.", err=True)


def calls_tool(client: ServerClient) -> bool:
    try:
        body = client.post("/v1/chat/completions", msgspec.json.encode(TRIAL), TRIAL_SECONDS)
        calls = msgspec.json.decode(body, type=_TriedAnswer).choices[0].message.tool_calls or []
        return bool(calls) and all(
            call.function.name == "read_file"
            and msgspec.json.decode(call.function.arguments, type=_ReadFile).path == "notes.txt"
            for call in calls
        )
    except (msgspec.DecodeError, Unusable):
        return False


def _offer(home: Path, figures: DeviceFigures) -> list[str]:
    from service.cli.models import SLOW_WITHOUT_GPU, memory_for_models
    from service.models.inventory import installed_models
    from service.models.names import DEMO
    from service.models.recommended import fitting

    click.echo("No model is configured yet.", err=True)
    click.echo(memory_for_models(figures), err=True)
    installed = [model for model in installed_models(home, Path.home()) if model.name != DEMO]
    own = {model.name for model in installed}
    new = [model for model in fitting(figures) if model.id not in own]
    if figures.kind == "cpu":
        click.echo(f"{SLOW_WITHOUT_GPU}\n", err=True)
        new.sort(key=lambda model: model.size_bytes)
    new = new[:SHOWN_FITS]
    rows = [(model.name, model.size_bytes, f"on this machine, from {model.source}") for model in installed]
    rows += [(model.id, model.size_bytes, f"to download; {model.good_for}") for model in new]
    width = max((len(name) for name, *_ in rows), default=0)
    for number, (name, size, note) in enumerate(rows, 1):
        click.echo(f"{number:3}  {name:{width}}  {size / 1e9:5.1f} GB  {note}", err=True)
    return [name for name, *_ in rows]


def _ask(names: list[str]) -> str:
    text: str = click.prompt("\nWhich model? A number, a hub id or a folder", default="1" if names else None, err=True)
    text = text.strip()
    return names[int(text) - 1] if text.isdecimal() and 0 < int(text) <= len(names) else text
