import signal
from collections.abc import Callable
from queue import Empty, SimpleQueue
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
    interrupted = until_ctrl_c()
    try:
        if as_json or not console.is_terminal:
            _print(console, _ask(client), client.address.root, as_json)
            while not interrupted(interval):
                _print(console, _ask(client), client.address.root, as_json)
        else:
            _watch(console, client, interval, interrupted)
    except KeyboardInterrupt:
        return


def until_ctrl_c() -> Callable[[float], bool]:
    """Returns a function that waits. At Ctrl-C it returns True or raises KeyboardInterrupt."""
    # Python drops a KeyboardInterrupt inside a finalizer, but the queue keeps its item. A handler that sets a
    # threading.Event would wait for ever for the lock of the `wait` that it interrupts.
    interrupts: SimpleQueue[None] = SimpleQueue()

    def on_sigint(number: int, frame: FrameType | None) -> None:
        interrupts.put(None)
        raise KeyboardInterrupt

    def interrupted(seconds: float) -> bool:
        try:
            interrupts.get(timeout=seconds)
        except Empty:
            return False
        return True

    # A shell starts background jobs with SIGINT ignored; this ends them too.
    signal.signal(signal.SIGINT, on_sigint)
    return interrupted


def _print(console: "Console", stats: Stats, root: str, as_json: bool) -> None:
    from service.cli.stats_view import view

    if as_json:
        click.echo(msgspec.json.encode(stats))
    else:
        console.print(view(stats, root, recent=RECENT_ONCE, width=console.width))


def _watch(console: "Console", client: ServerClient, interval: float, interrupted: Callable[[float], bool]) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        live.update(_view_now(console, client), refresh=True)
        while not interrupted(interval):
            live.update(_view_now(console, client), refresh=True)


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
