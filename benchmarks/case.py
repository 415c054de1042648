"""What a case declares, and what a run of it gives back."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

Verdict = Literal["met", "missed", ""]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a case. `unit` is `x` for ratios. Without a bound it is there to be read, not judged."""

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
    """One run. `scratch` is a folder of its own that goes away after it; `quick` asks for as little work as shows
    that the case works."""

    scratch: Path
    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


class Unavailable(Exception):
    """The case cannot be run here. The message says what is missing, and how to get it."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where the figures come from: enough to read them by, and nothing that names the machine."""

    date: str
    system: str
    cpu_count: int
    python: str
    versions: dict[str, str]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure over all runs; `values` has one for each run, `median` is theirs."""

    name: str
    unit: str
    target: str
    values: tuple[float, ...]
    median: float
    verdict: Verdict


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One case: `benchmarks/results/NAME.json`."""

    case: str
    title: str
    quick: bool
    environment: Environment
    figures: tuple[Figure, ...]

    def median(self, name: str) -> float:
        """Raises KeyError when there is no such figure."""
        for figure in self.figures:
            if figure.name == name:
                return figure.median
        raise KeyError(name)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`run` measures once, in a process of its own, and gives a value for every measure by name. `timeout_seconds`
    bounds one run. `tables` writes the result as Markdown where one table of all measures would not do; `plots` draws
    it into a folder and names the files."""

    title: str
    measures: tuple[Measure, ...]
    run: Callable[[Run], Awaitable[dict[str, float]]]
    runs: int = 3
    timeout_seconds: float = 180.0
    tables: Callable[[Result], str] | None = None
    plots: Callable[[Result, Path], list[Path]] | None = None
