"""`anyclaude config`: what is in force, and where each value came from."""

import json
from typing import Any

import click

from service.cli.configuration import config_option, read_configuration
from service.config import Origins
from service.config.keys import SETTING_KEYS, Key
from service.config.redaction import shown_value
from service.config.values import show


@click.command("config", short_help="Print what is configured, and where each value came from.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(config: str | None, as_json: bool) -> None:
    """Print every setting that is in force, under its key in .anyclauderc.json, and where it came from: a flag, a
    variable, a file, or the defaults. Keys are not shown."""
    settings, origins = read_configuration({"config": config})
    rows = [(key, shown_value(key, settings)) for key in SETTING_KEYS]
    if as_json:
        document = {key.dotted: {"value": value, "from": str(origins[key.field])} for key, value in rows}
        click.echo(json.dumps(document, indent=2))
    else:
        _print_table(rows, origins)


def _print_table(rows: list[tuple[Key, Any]], origins: Origins) -> None:
    """Columns that are never cut: a key is to be copied from here."""
    shown = [(key.dotted, show(value), origins[key.field]) for key, value in rows]
    key_width = max(len(dotted) for dotted, _, _ in shown)
    value_width = max(len(value) for _, value, _ in shown)
    for dotted, value, origin in shown:
        line = f"{dotted:<{key_width}}  {value:<{value_width}}  {origin.where or origin.kind}"
        click.echo(click.style(line, dim=origin.kind == "default"))
