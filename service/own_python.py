import os
import sys
from collections.abc import Mapping
from pathlib import Path

OWN_FOLDER = Path(__file__).resolve().parents[1]


def own_python(*arguments: str) -> list[str]:
    """`-P` keeps the working folder off `sys.path`. Otherwise a `service/` or `click.py` in the user's project would
    run instead of ours, before the user has trusted it. Run the command with `own_environment()`."""
    return [sys.executable, "-P", *arguments]


def own_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Keeps absolute folders outside of the working folder in PYTHONPATH, and adds the folder of this package."""
    kept = dict(environment)
    path = kept.pop("PYTHONPATH", "")
    if folders := [folder for folder in path.split(os.pathsep) if _is_trusted(folder)]:
        kept["PYTHONPATH"] = os.pathsep.join(folders)
    return kept


def _is_trusted(folder: str) -> bool:
    path = Path(folder)
    if not path.is_absolute():  # the empty entry means the working folder
        return False
    path = path.resolve()
    return path == OWN_FOLDER or not path.is_relative_to(Path.cwd())
