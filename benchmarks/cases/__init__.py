"""Each module has a `CASE`, and the file's name is the case's name."""

import pkgutil
from importlib import import_module

from benchmarks.case import Case


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Case:
    """`name` may also be the dotted name of any module with a `CASE`. Raises ModuleNotFoundError."""
    case: Case = import_module(name if "." in name else f"{__name__}.{name}").CASE
    return case
