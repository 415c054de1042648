"""The configuration as commands read it: from the real environment, with errors that end the command."""

import os
from pathlib import Path

import click

from service.cli.exits import Exit, Failure
from service.config import ConfigError, Origins, load_settings
from service.settings import Settings


def read_configuration(flags: dict[str, object]) -> tuple[Settings, Origins]:
    """What is in force here. `flags` are by field of `Settings`, plus `config`; None is one that was not given."""
    try:
        return load_settings(flags, os.environ, Path.cwd(), Path.home())
    except ConfigError as exc:
        raise Failure(Exit.CONFIG, str(exc)) from None


config_option = click.option(
    "--config", type=click.Path(dir_okay=False), help="Read this file instead of .anyclauderc.json."
)
url_option = click.option("--url", help="Where the server is, such as http://localhost:9000; else VLLM_MLX_URL.")


def no_server(root: str) -> Failure:
    """For commands that take `url_option`."""
    advice = "Start one with 'anyclaude serve', or say where it is with --url or VLLM_MLX_URL."
    return Failure(Exit.UNAVAILABLE, f"No server answers at {root}. {advice}")
