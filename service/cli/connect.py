import os

import click

from service.agents.agent import Launch
from service.agents.script import setup_script
from service.agents.table import AGENTS
from service.cli.client import ServerClient
from service.cli.configuration import read_configuration
from service.cli.launch import agent_server
from service.cli.options import config_option, url_option


@click.command("connect", short_help="Print the settings for an agent of your own.")
@click.argument("name", metavar="AGENT", type=click.Choice(list(AGENTS)))
@url_option
@config_option
def command(name: str, url: str | None, config: str | None) -> None:
    """Print the variables, the files and the command with which AGENT uses the running server.

    'anyclaude AGENT' does the same for one run and leaves the agent's own files alone.
    """
    settings = read_configuration({"base_url": url, "config": config}).settings
    agent = AGENTS[name]
    server = agent_server(settings, ServerClient.of(settings))
    folder = settings.home / "agents" / name
    launch = Launch(server=server, folder=folder, environ={"HOME": os.environ.get("HOME", "")})
    click.echo(f"# {agent.title} with {server.model} at {server.root}. To install it: {agent.install}")
    click.echo(setup_script(agent, launch))
