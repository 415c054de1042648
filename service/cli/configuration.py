"""Reads the configuration for commands. Errors end the command."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from service.cli.exits import Exit, Failure
from service.config import ConfigError, Configuration, Unapproved, load_configuration
from service.config.keys import SETTING_KEYS
from service.config.redaction import shown_given
from service.config.trust import decline


def read_configuration(flags: dict[str, object]) -> Configuration:
    """`flags` are by field of `Settings`, plus `config`. Asks a user in a terminal about values that need approval,
    otherwise lists them on stderr."""
    try:
        found = load_configuration(flags, os.environ, Path.cwd(), Path.home(), _ask if in_terminal() else decline)
    except ConfigError as exc:
        raise Failure(Exit.CONFIG, str(exc)) from None
    if found.unapproved is not None and not in_terminal():
        click.echo(f"Note: {left_out(found.unapproved)} Run 'anyclaude trust' there to approve the file.", err=True)
    return found


def in_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def left_out(unapproved: Unapproved) -> str:
    names = ", ".join(key.path[-1] for key in SETTING_KEYS if key.field in unapproved.asked)
    return f"{unapproved.path} is not approved, so these values of it are left out: {names}."


def asked_values(unapproved: Unapproved) -> Iterator[str]:
    """Escapes the JSON, because the file's author also chose its characters."""
    for key in SETTING_KEYS:
        if given := unapproved.asked.get(key.field):
            now = unapproved.instead[key.field]
            yield f"  {key.dotted}: {_as_json(shown_given(key, given))}, instead of {_as_json(shown_given(key, now))}"


def _ask(unapproved: Unapproved) -> bool:
    click.echo(f"{json.dumps(str(unapproved.path))} asks for values that need your approval:", err=True)
    for line in asked_values(unapproved):
        click.echo(line, err=True)
    return click.confirm("Approve this file? Without approval these values are left out.", err=True)


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
