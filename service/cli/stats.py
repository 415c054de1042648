import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

import click
import msgspec

from service.cli.client import ServerClient, server_required
from service.cli.configuration import read_configuration
from service.cli.exits import Failure
from service.cli.options import config_option, url_option
from service.telemetry.stats import Stats

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

RECENT_ONCE = 10
OTHER_LINES = 15


@click.command("stats", short_help="Show what the server does, and what its response cache saved.")
@click.option("--watch", is_flag=True, help="Go on showing it until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the answer of /stats, one line each time.")
@url_option
@config_option
def command(watch: bool, interval: float, as_json: bool, url: str | None, config: str | None) -> None:
    """Show state, load, response cache and last requests of the running server, as its page /dashboard does."""
    from rich.console import Console

    settings = read_configuration({"base_url": url, "config": config}).settings
    client, console = ServerClient.of(settings), Console(highlight=False)
    if not watch:
        _print(console, _ask(client), client.address.root, as_json)
        return
    stop = _stop_on_ctrl_c()
    try:
        if as_json or not console.is_terminal:
            while not stop.is_set():
                _print(console, _ask(client), client.address.root, as_json)
                stop.wait(interval)
        else:
            _watch(console, client, interval, stop)
    except KeyboardInterrupt:
        return


def _stop_on_ctrl_c() -> threading.Event:
    # Python drops a KeyboardInterrupt inside a finalizer, but the event stays set. A shell starts background jobs with
    # SIGINT ignored; this ends them too.
    stop = threading.Event()

    def on_sigint(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_sigint)
    return stop


def _print(console: "Console", stats: Stats, root: str, as_json: bool) -> None:
    from service.cli.stats_view import view

    if as_json:
        click.echo(msgspec.json.encode(stats))
    else:
        console.print(view(stats, root, recent=RECENT_ONCE, width=console.width))


def _watch(console: "Console", client: ServerClient, interval: float, stop: threading.Event) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while not stop.is_set():
            live.update(_view_now(console, client), refresh=True)
            stop.wait(interval)


def _view_now(console: "Console", client: ServerClient) -> "RenderableType":
    from service.cli.stats_view import view

    try:
        recent = max(0, console.height - OTHER_LINES)
        return view(_ask(client), client.address.root, recent=recent, width=console.width)
    except Failure as exc:
        return exc.message


def _ask(client: ServerClient) -> Stats:
    with server_required(client):
        return client.stats()
