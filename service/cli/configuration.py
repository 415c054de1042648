"""The configuration as commands read it: from the real environment, with errors that end the command."""

import os
from pathlib import Path

from service.cli.exits import Exit, Failure
from service.config import ConfigError, Origins, load_settings
from service.settings import Settings


def read_configuration(flags: dict[str, object]) -> tuple[Settings, Origins]:
    """What is in force here. `flags` are by field of `Settings`, plus `config`; None is one that was not given."""
    try:
        return load_settings(flags, os.environ, Path.cwd(), Path.home())
    except ConfigError as exc:
        raise Failure(Exit.CONFIG, str(exc)) from None
