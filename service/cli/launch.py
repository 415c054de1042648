"""The launcher: `anyclaude [--mode=vllm-mlx] [CLAUDE ARGS...]`, `anyclaude codex [CODEX ARGS...]` and so on."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import msgspec

from service.agents.agent import Agent, AgentServer, Launch
from service.agents.claude_code import TIER_NAMES, prompt_too_long
from service.agents.process import run_agent, with_folder_of
from service.agents.table import AGENTS
from service.cli import serve
from service.cli.client import Model, Refused, ServerClient, Unusable, server_required
from service.cli.configuration import in_terminal, read_configuration
from service.cli.exits import Exit, Failure
from service.cli.first_start import choose_model, keep_model, lacks_model
from service.cli.server_process import BackgroundServer
from service.cli.startup import Startup
from service.config import Address, Configuration, parse_base_url
from service.keep_awake import kept_awake
from service.models.demo import DEMO_MODEL
from service.settings import Settings
from service.storage import private_folder, write_file


@click.command("launch", hidden=True)
@click.option("--mode", default="vllm-mlx")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(mode: str, arguments: tuple[str, ...]) -> None:
    """Run Claude Code on the local server."""
    if mode != "vllm-mlx":
        raise Failure(Exit.USAGE, f"Expected --mode=vllm-mlx, found --mode={mode}. There is no other backend.")
    launch(AGENTS["claude"], arguments)


def agent_command(name: str) -> click.Command:
    agent = AGENTS[name]
    arguments = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        params=[arguments],
        callback=lambda arguments: launch(agent, arguments),
        short_help=f"Run {agent.title} on the local server.",
        add_help_option=False,
    )


def launch(agent: Agent, arguments: tuple[str, ...]) -> None:
    """Starts and stops the configured server if it does not run. Exits with the agent's exit code."""
    found = read_configuration({})
    settings = found.settings
    client = ServerClient.of(settings)
    if settings.proxy_only:
        _serve_only(found, client)
        return
    program = agent.find(os.environ)
    if program is None:
        raise Failure(Exit.NO_AGENT, f"{agent.title} is not installed: {agent.missing}. Try: {agent.install}")
    chosen = _first_model(settings, client)
    with on_server(settings, client, () if chosen is None else (chosen,)), kept_awake(settings):
        server = agent_server(settings, client)
        if chosen is not None:
            keep_model(chosen, client)
        _note_surprises(settings, client.address, server.model)
        if agent.name == "claude":
            server = _with_tiers(server, client)
            _warn_of_small_context(server, arguments)
        code = _run(agent, program, server, arguments, settings.home)
    sys.exit(code)


def _first_model(settings: Settings, client: ServerClient) -> str | None:
    """Returns None if a model is configured, or a server runs."""
    if not lacks_model(settings) or Startup(settings, client).find() is not None:
        return None
    return choose_model(settings)


def agent_server(settings: Settings, client: ServerClient) -> AgentServer:
    model = served_model(client)
    return AgentServer(
        root=client.address.root,
        api_key=settings.api_key,
        model=model.id,
        context_length=model.context_length,
        patience_seconds=settings.queue_timeout_seconds + settings.request_timeout_seconds,
    )


def _with_tiers(server: AgentServer, client: ServerClient) -> AgentServer:
    """The first tier's model is the main model."""
    models: dict[str, Model] = {}
    for tier, name in TIER_NAMES.items():
        with suppress(Unusable):
            models[tier] = client.model_named(name)
    main = models.get("opus")
    if main is not None:
        server = msgspec.structs.replace(server, model=main.id, context_length=main.context_length)
    return msgspec.structs.replace(server, tiers={tier: model.id for tier, model in models.items()})


def served_model(client: ServerClient) -> Model:
    with server_required(client):
        try:
            return client.model()
        except Refused as exc:
            message = f"The server at {client.address.root} refuses the key in apiKey: {exc}"
            raise Failure(Exit.CONFIG, message) from None


def _run(agent: Agent, program: str, server: AgentServer, arguments: tuple[str, ...], home: Path) -> int:
    with tempfile.TemporaryDirectory(prefix=f"{agent.name}-", dir=private_folder(home / "run")) as folder:
        run = Launch(server=server, folder=Path(folder), environ=os.environ, arguments=arguments)
        setup = agent.prepare(run)
        for name, content in setup.files.items():
            write_file(Path(folder, name), content.encode())
        kept = {name: value for name, value in os.environ.items() if name not in setup.removed}
        environment = kept | setup.variables | _no_proxy(kept, server)
        return run_agent([program, *setup.arguments, *arguments], with_folder_of(program, environment))


def _no_proxy(environ: Mapping[str, str], server: AgentServer) -> dict[str, str]:
    """A proxy cannot reach a server on this machine."""
    if not parse_base_url(server.base_url).local:
        return {}
    names = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    listed = ",".join(part for part in (names, "localhost,127.0.0.1,::1") if part)
    return {"NO_PROXY": listed, "no_proxy": listed}


def _warn_of_small_context(server: AgentServer, arguments: tuple[str, ...]) -> None:
    """Asks the user in a terminal, because Claude Code's screen would hide a note."""
    note = prompt_too_long(server, arguments)
    if note is None and server.model == DEMO_MODEL.name:
        click.echo(f"Note: {server.model} shows how things work together; it is too small for an agent.", err=True)
    if note is None:
        return
    click.echo(f"Note: {note}", err=True)
    if in_terminal() and "-p" not in arguments and "--print" not in arguments:
        click.confirm("Start Claude Code anyway?", abort=True, err=True)


def serve_arguments(model: str | None, config: str | None) -> tuple[str, ...]:
    return (*([model] if model else []), *(["--config", config] if config else []))


@contextmanager
def on_server(settings: Settings, client: ServerClient, arguments: tuple[str, ...] = ()) -> Iterator[None]:
    """`arguments` are for `serve` if the server is started here."""
    startup = Startup(settings, client)
    with _ended_by_signals(), _state_in(settings.home):
        if client.address.local:
            with startup.use_local(BackgroundServer(settings, arguments)):
                yield
        else:
            startup.use_remote()
            yield


@contextmanager
def _state_in(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        place = Path(str(exc.filename or ""))
        if not place.is_relative_to(home) and place not in home.parents:
            raise
        advice = f"Make {home} writable, or name another place with ANYCLAUDE_HOME."
        raise Failure(Exit.CONFIG, f"{place} cannot be written: {exc.strerror}. {advice}") from None


def _serve_only(found: Configuration, client: ServerClient) -> None:
    startup, address = Startup(found.settings, client), client.address
    health = startup.find()
    if health is None and address.local:
        serve.run(found)
        return
    health = health or startup.use_remote()
    click.echo(f"A server is up at {address.root}: {health.status}, model {health.model or 'not known yet'}.")


def _note_surprises(settings: Settings, address: Address, model: str) -> None:
    if not address.local:
        click.echo(f"Using the server at {address.root}, which is not on this machine: {model}.", err=True)
    wanted = (settings.model or "").rstrip("/").rsplit("/", 1)[-1]
    if wanted and wanted != "demo" and wanted != model.rsplit("/", 1)[-1]:
        message = f"Note: the server at {address.root} serves {model}, not {settings.model}. "
        click.echo(message + "Stop it to have the configured model started.", err=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP act like Ctrl-C while the server starts, so that it is stopped."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
