import json
import os
from pathlib import Path
from typing import Any

import click

from service.cli.configuration import asked_values, left_out
from service.cli.exits import Exit, Failure
from service.cli.options import config_option
from service.config import ConfigError, Origins, load_configuration
from service.config.keys import SETTING_KEYS, Key
from service.config.redaction import shown_given, shown_value
from service.config.schema import build_example, build_schema
from service.config.values import show


@click.command("config", short_help="Print what is configured, and where each value came from.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of .anyclauderc.json, for editors.")
@click.option("--example", is_flag=True, help="Print a .anyclauderc.json with every key at its default.")
def command(config: str | None, as_json: bool, schema: bool, example: bool) -> None:
    """Print every setting by its key in .anyclauderc.json, its value, and where the value came from: an option, a
    variable, a file or the defaults. API keys are hidden. Values of a file that is not approved come last."""
    if schema or example:
        click.echo(json.dumps(build_schema() if schema else build_example(), indent=2))
        return
    try:
        found = load_configuration({"config": config}, os.environ, Path.cwd(), Path.home())
    except ConfigError as exc:
        raise Failure(Exit.CONFIG, str(exc)) from None
    rows = [(key, shown_value(key, found.settings)) for key in SETTING_KEYS]
    asked = found.unapproved.asked if found.unapproved is not None else {}
    if as_json:
        document = {key.dotted: {"value": value, "from": str(found.origins[key.field])} for key, value in rows}
        for key in SETTING_KEYS:
            if given := asked.get(key.field):
                document[key.dotted] |= {"notApproved": shown_given(key, given), "notApprovedFrom": given.origin.where}
        click.echo(json.dumps(document, indent=2))
        return
    _print_table(rows, found.origins)
    if found.unapproved is not None:
        click.secho(f"\n{left_out(found.unapproved)} 'anyclaude trust' approves it.", fg="yellow")
        for line in asked_values(found.unapproved):
            click.echo(line)


def _print_table(rows: list[tuple[Key, Any]], origins: Origins) -> None:
    """Users copy keys and values from here, so no column is cut."""
    shown = [(key.dotted, show(value), origins[key.field]) for key, value in rows]
    key_width = max(len(dotted) for dotted, _, _ in shown)
    value_width = max(len(value) for _, value, _ in shown)
    for dotted, value, origin in shown:
        line = f"{dotted:<{key_width}}  {value:<{value_width}}  {origin.where or origin.kind}"
        click.echo(click.style(line, dim=origin.kind == "default"))
