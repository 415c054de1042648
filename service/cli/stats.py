"""`anyclaude stats`: what the server says of itself, once or again and again."""

import json
import time

import click
import msgspec

from service.cli.client import Health, NoAnswer, NotOurs, NotThere, Refused, ServerClient
from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.config import server_address


@click.command("stats", short_help="Show what the server does, and what its response cache saved.")
@click.option("--watch", is_flag=True, help="Go on showing it until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the answer of /health, one line each time.")
def command(watch: bool, interval: float, as_json: bool) -> None:
    """Show the state, the load and the response cache of the running server."""
    settings, _ = read_configuration({})
    address = server_address(settings)
    client = ServerClient(address, settings.api_key)
    if not watch:
        health = _ask(client, address.root)
        click.echo(json.dumps(msgspec.to_builtins(health)) if as_json else describe(health, address.root))
        return
    try:
        _watch(client, address.root, interval, as_json)
    except KeyboardInterrupt:
        return


def describe(health: Health, root: str) -> str:
    """One screen, the same every time but for the numbers."""
    cache = health.cache
    rows = [
        ("Server", f"{root}: {health.status}" + (f" ({health.detail})" if health.detail else "")),
        ("Model", health.model + ("" if health.model_loaded else " (not loaded yet)")),
        ("Generating", f"{health.running} running, {health.waiting} waiting"),
        (
            "Response cache",
            f"{cache.get('hits', 0)} hits of {cache.get('total_requests', 0)} requests "
            f"({cache.get('hit_rate', '0.0%')}), {cache.get('cached_items', 0)} answers kept",
        ),
    ]
    return "\n".join(f"{name:<15} {value}" for name, value in rows)


def _watch(client: ServerClient, root: str, interval: float, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    if as_json or not console.is_terminal:
        while True:
            health = _ask(client, root)
            click.echo(json.dumps(msgspec.to_builtins(health)) if as_json else describe(health, root) + "\n")
            time.sleep(interval)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Text(_describe_now(client, root)), refresh=True)
            time.sleep(interval)


def _describe_now(client: ServerClient, root: str) -> str:
    """A server that restarts is watched on."""
    try:
        return describe(_ask(client, root), root)
    except Failure as exc:
        return exc.message


def _ask(client: ServerClient, root: str) -> Health:
    try:
        return client.health()
    except NotThere:
        raise Failure(Exit.UNAVAILABLE, f"No server answers at {root}. Start one with 'anyclaude serve'.") from None
    except NoAnswer:
        raise Failure(Exit.UNAVAILABLE, f"The server at {root} did not answer in time.") from None
    except Refused as exc:
        raise Failure(Exit.UNAVAILABLE, f"The server at {root} refuses to answer: {exc}") from None
    except NotOurs as exc:
        raise Failure(Exit.PORT_IN_USE, f"What answers at {root} is not anyclaude: {exc}.") from None
