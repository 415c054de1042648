"""How we start Python for ourselves: the user's working folder is never on its import path."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

OWN_FOLDER = Path(__file__).resolve().parents[1]


def own_python(*arguments: str) -> list[str]:
    """The command that runs this interpreter with `arguments`, such as `-m service.cli`.

    `-P` keeps the working folder off `sys.path`. Without it a `service/` or a `click.py` in the user's project runs
    instead of ours, before the user has trusted that project. Run the command with `own_environment()`.
    """
    return [sys.executable, "-P", *arguments]


def own_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for `own_python`: PYTHONPATH keeps absolute folders outside of the working folder, and the one
    that this package was imported from."""
    kept = dict(environment)
    path = kept.pop("PYTHONPATH", "")
    if folders := [folder for folder in path.split(os.pathsep) if _is_trusted(folder)]:
        kept["PYTHONPATH"] = os.pathsep.join(folders)
    return kept


def _is_trusted(folder: str) -> bool:
    path = Path(folder)
    if not path.is_absolute():  # also the empty entry, which means the working folder
        return False
    path = path.resolve()
    return path == OWN_FOLDER or not path.is_relative_to(Path.cwd())
