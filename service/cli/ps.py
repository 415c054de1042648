import json
from typing import Any

import click

from service.cli.client import Health, NoAnswer, NotOurs, NotThere, Refused, ServerClient
from service.cli.configuration import read_configuration
from service.cli.options import config_option
from service.cli.server_process import background_servers
from service.config import base_url, parse_base_url, server_address


@click.command("ps", short_help="List the running servers.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@config_option
def command(as_json: bool, config: str | None) -> None:
    """List the servers that anyclaude started in the background, and the one at the configured address.

    STATUS is that of /health, or 'silent' if the server does not answer.
    """
    settings = read_configuration({"config": config}).settings
    started = {base_url("127.0.0.1", port): server.pid() for port, server in background_servers(settings)}
    configured = server_address(settings)
    roots = {parse_base_url(url).root: pid for url, pid in started.items()}
    if configured.port not in (parse_base_url(url).port for url in started):
        roots[configured.root] = None
    rows: list[dict[str, Any]] = []
    for root, pid in roots.items():
        health = _health(ServerClient(parse_base_url(root), settings.api_key))
        if health is not None:
            models = {model.name: model.model_loaded for model in health.models}
            row: dict[str, Any] = {"address": root, "pid": pid, "status": health.status, "model": health.model}
            rows.append({**row, "models": models or {health.model: health.model_loaded}})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("No server is running. 'anyclaude serve' starts one, and 'anyclaude' starts one for its session.")
        return
    click.echo(f"{'ADDRESS':28}  {'PID':>7}  {'STATUS':9}  MODEL")
    for row in rows:
        names = ", ".join(name if loaded else f"{name} (not loaded)" for name, loaded in row["models"].items())
        click.echo(f"{row['address']:28}  {row['pid'] or '-':>7}  {row['status']:9}  {names}")


def _health(client: ServerClient) -> Health | None:
    try:
        return client.health()
    except (NotThere, NotOurs, Refused):
        return None
    except NoAnswer:
        return Health(status="silent", model="", model_loaded=False, cache={})
