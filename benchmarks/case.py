"""The types that a case declares and returns."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

Verdict = Literal["met", "missed", ""]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """`unit` is `x` for ratios. A measure without a bound is reported but not judged."""

    name: str
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:,g} {self.unit}"
        return f"≥ {self.at_least:,g} {self.unit}" if self.at_least is not None else ""

    def judge(self, value: float) -> Verdict:
        if self.at_most is not None:
            return "met" if value <= self.at_most else "missed"
        if self.at_least is not None:
            return "met" if value >= self.at_least else "missed"
        return ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """`scratch` is deleted after the run; `quick` asks for the least work that shows that the case works."""

    scratch: Path
    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


class Unavailable(Exception):
    """The case cannot run here. The message names what is missing and how to get it."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The fields do not identify the machine."""

    date: str
    system: str
    cpu_count: int
    python: str
    versions: dict[str, str]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`values` holds one value a run."""

    name: str
    unit: str
    target: str
    values: tuple[float, ...]
    median: float
    verdict: Verdict


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `benchmarks/results/NAME.json`."""

    case: str
    title: str
    quick: bool
    environment: Environment
    figures: tuple[Figure, ...]

    def median(self, name: str) -> float:
        """Raises KeyError if there is no such figure."""
        for figure in self.figures:
            if figure.name == name:
                return figure.median
        raise KeyError(name)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`run` measures once, in its own process, and returns a value for each measure by name. `tables` renders the
    result instead of one table of all measures; `plots` draws into a folder and returns the files."""

    title: str
    measures: tuple[Measure, ...]
    run: Callable[[Run], Awaitable[dict[str, float]]]
    runs: int = 3
    timeout_seconds: float = 180.0
    tables: Callable[[Result], str] | None = None
    plots: Callable[[Result, Path], list[Path]] | None = None
