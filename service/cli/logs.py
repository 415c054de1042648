import time
from pathlib import Path

import click

from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.options import config_option
from service.cli.server_process import BackgroundServer

POLL_SECONDS = 0.2


@click.command("logs", short_help="Show the log of a background server.")
@click.argument("port", type=int, required=False)
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="The last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
@config_option
def command(port: int | None, lines: int, follow: bool, config: str | None) -> None:
    """Show the log of the server that 'anyclaude' started on PORT, else on the configured port."""
    settings = read_configuration({"config": config}).settings
    file = BackgroundServer.log_file(settings.home, port or settings.port)
    if not file.exists():
        raise Failure(Exit.FAILED, f"There is no {file}. Only a server that 'anyclaude' starts has a log file.")
    shown = _show_end(file, lines)
    while follow:
        time.sleep(POLL_SECONDS)
        shown = _show_from(file, shown if file.stat().st_size >= shown else 0)


def _show_end(file: Path, lines: int) -> int:
    content = file.read_bytes()
    for line in content.decode(errors="replace").splitlines()[-lines:] if lines else []:
        click.echo(line)
    return len(content)


def _show_from(file: Path, start: int) -> int:
    with file.open("rb") as opened:
        opened.seek(start)
        new = opened.read()
    click.echo(new.decode(errors="replace"), nl=False)
    return start + len(new)
