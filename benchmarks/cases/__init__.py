"""The cases, one a file, found by the file's name: each has a `CASE`."""

import pkgutil
from importlib import import_module

from benchmarks.case import Case


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Case:
    """The case of that file; a dotted name is a module anywhere. Raises ModuleNotFoundError when there is none."""
    case: Case = import_module(name if "." in name else f"{__name__}.{name}").CASE
    return case
