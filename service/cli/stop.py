import click

from service.cli.configuration import read_configuration
from service.cli.exits import Exit, Failure
from service.cli.options import config_option
from service.cli.server_process import BackgroundServer, background_servers


@click.command("stop", short_help="Stop background servers.")
@click.argument("port", type=int, required=False)
@click.option("--all", "stop_all", is_flag=True, help="Stop all of them.")
@click.option("--force", is_flag=True, help="Stop it even if an agent uses it.")
@config_option
def command(port: int | None, stop_all: bool, force: bool, config: str | None) -> None:
    """Stop the background server on PORT, else on the configured port. Running answers may end first.

    'anyclaude' stops its server by itself; this is for one that was left over. A server in the foreground is stopped
    with Ctrl-C where it runs.
    """
    settings = read_configuration({"config": config}).settings
    running = dict(background_servers(settings))
    wanted = list(running) if stop_all else [port or settings.port]
    for number in wanted:
        if number not in running:
            raise Failure(Exit.FAILED, f"No background server runs on port {number}. 'anyclaude ps' lists them.")
        _stop(number, running[number], force)
    if not wanted:
        click.echo("No background server runs.")


def _stop(port: int, server: BackgroundServer, force: bool) -> None:
    with server.order():
        if server.in_use() and not force:
            raise Failure(Exit.FAILED, f"An agent uses the server on port {port}. Stop it all the same with --force.")
        server.stop()
    click.echo(f"Stopped the server on port {port}.")
