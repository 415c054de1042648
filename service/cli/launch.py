"""The launcher: `anyclaude [--mode=vllm-mlx] [CLAUDE ARGS...]`."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from service.cli import serve
from service.cli.claude_code import INSTALL, claude_environment, find_claude, prompt_too_long, run_claude
from service.cli.client import Model, NoAnswer, NotOurs, NotThere, Refused, ServerClient
from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.server_process import BackgroundServer
from service.cli.startup import Startup
from service.config import Address, Configuration, server_address
from service.settings import Settings


@click.command("launch", hidden=True)
@click.option("--mode", type=click.Choice(["vllm-mlx"]), default="vllm-mlx")
@click.argument("claude_arguments", nargs=-1, type=click.UNPROCESSED)
def command(mode: str, claude_arguments: tuple[str, ...]) -> None:
    """Run Claude Code on the local server, which is started if it is not up, and stopped again."""
    found = read_configuration({})
    settings = found.settings
    address = server_address(settings)
    client = ServerClient(address, settings.api_key)
    startup = Startup(settings, address, client, Console(stderr=True))
    if settings.proxy_only:
        _serve_only(found, startup, address)
        return
    claude = find_claude(os.environ)
    if claude is None:
        raise Failure(Exit.NO_CLAUDE, f"Claude Code is not installed: there is no 'claude' on PATH. Try: {INSTALL}")
    with _ended_by_signals(), _state_in(settings.home), _server(startup, settings, address):
        model = _model(client, address)
        _say_what_is_used(settings, address, model)
        if note := prompt_too_long(model, claude_arguments):
            click.echo(f"Note: {note}", err=True)
        environment = claude_environment(os.environ, settings, address, model)
        code = run_claude([claude, *claude_arguments], environment)
    sys.exit(code)


@contextmanager
def _server(startup: Startup, settings: Settings, address: Address) -> Iterator[None]:
    if address.local:
        with startup.use_local(BackgroundServer(settings)):
            yield
    else:
        startup.use_remote()
        yield


@contextmanager
def _state_in(home: Path) -> Iterator[None]:
    """Turns a home folder that cannot be written into one line."""
    try:
        yield
    except OSError as exc:
        place = Path(str(exc.filename or ""))
        if not place.is_relative_to(home) and place not in home.parents:
            raise
        advice = f"Make {home} writable, or name another place with ANYCLAUDE_HOME."
        raise Failure(Exit.CONFIG, f"{place} cannot be written: {exc.strerror}. {advice}") from None


def _serve_only(found: Configuration, startup: Startup, address: Address) -> None:
    """Serves in the foreground, unless a server runs already."""
    health = startup.find()
    if health is None and address.local:
        serve.run(found)
        return
    health = health or startup.use_remote()
    click.echo(f"A server is up at {address.root}: {health.status}, model {health.model or 'not known yet'}.")


def _say_what_is_used(settings: Settings, address: Address, model: Model) -> None:
    """Notes what may surprise: prompts that leave this machine, and another model than the configured one."""
    if not address.local:
        click.echo(f"Using the server at {address.root}, which is not on this machine: {model.id}.", err=True)
    wanted = (settings.model or "").rstrip("/").rsplit("/", 1)[-1]
    if wanted and wanted != "demo" and wanted != model.id.rsplit("/", 1)[-1]:
        message = f"Note: the server at {address.root} serves {model.id}, not {settings.model}. "
        click.echo(message + "Stop it to have the configured model started.", err=True)


def _model(client: ServerClient, address: Address) -> Model:
    try:
        return client.model()
    except Refused as exc:
        raise Failure(Exit.CONFIG, f"The server at {address.root} refuses the key in apiKey: {exc}") from None
    except (NotThere, NoAnswer, NotOurs) as exc:
        raise Failure(Exit.UNAVAILABLE, f"The server at {address.root} does not tell its model: {exc}.") from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """While the server starts, SIGTERM and SIGHUP end the launcher as Ctrl-C does, and stop what it started."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
