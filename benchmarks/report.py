"""Renders results as Markdown for docs/benchmarks.md and as a table for the terminal."""

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from benchmarks.case import Case, Figure, Result

VERDICT_STYLES = {"met": "green", "missed": "bold red", "": ""}


class MarkersMissing(ValueError):
    """The message gives the two lines that make a place for the case."""


def markdown(result: Result, case: Case) -> str:
    return case.tables(result) if case.tables else table_of(result.figures)


def table_of(figures: tuple[Figure, ...]) -> str:
    runs = max(len(figure.values) for figure in figures)
    measured = f"median of {runs} runs" if runs > 1 else "one run"
    rows = [f"| | target | {measured} | range | |", "|---|---|---|---|---|"]
    for figure in figures:
        spread = f"{number(min(figure.values))} to {number(max(figure.values))}" if len(figure.values) > 1 else ""
        measured = f"{number(figure.median)} {figure.unit}"
        rows.append(f"| {figure.name} | {figure.target} | {measured} | {spread} | {figure.verdict} |")
    return "\n".join(rows)


def number(value: float) -> str:
    """Formats with three significant digits: 0.0123, 1.23, 12.3, 123, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def insert(document: str, name: str, text: str) -> str:
    """Replaces the text between the markers of the case `name`. Raises `MarkersMissing`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(document):
        raise MarkersMissing(f"Expected a place for the results of '{name}': the lines '{begin}' and '{end}'.")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", document)


def conditions(results: Iterable[Result]) -> str:
    """Describes where and when the results were measured, with one paragraph for each environment, the newest first."""
    cases: dict[str, list[str]] = {}
    for result in sorted(results, key=lambda result: result.environment.date, reverse=True):
        environment = result.environment
        versions = ", ".join(f"{name} {found}" for name, found in environment.versions.items())
        described = (
            f"Measured {environment.date} on {environment.system}, {environment.cpu_count} cores, "
            f"Python {environment.python}; {versions}"
        )
        cases.setdefault(described, []).append(f"`{result.case}`")
    if len(cases) == 1:
        return _wrapped(f"{next(iter(cases))}.")
    return "\n\n".join(_wrapped(f"{', '.join(names)}: {described}.") for described, names in cases.items())


def publish(result: Result, case: Case, document: Path) -> None:
    """Writes the tables into `document`, and the plots next to it. Raises `MarkersMissing`."""
    text = markdown(result, case)
    if case.plots:
        plots = case.plots(result, document.parent / "benchmarks")
        text += "".join(f"\n\n![{result.title}: {path.stem}](benchmarks/{path.name})" for path in plots)
    document.write_text(insert(document.read_text(), result.case, text))


def terminal_table(result: Result, case: Case) -> Table:
    """Shows all figures, or only the judged ones if the case has tables of its own."""
    table = Table(title=result.title, title_justify="left")
    for heading in ("", "target", "measured", "verdict"):
        table.add_column(heading)
    for figure in result.figures:
        if case.tables and not figure.target:
            continue
        measured = f"{number(figure.median)} {figure.unit}"
        table.add_row(figure.name, figure.target, measured, figure.verdict, style=VERDICT_STYLES[figure.verdict])
    return table


def _wrapped(paragraph: str) -> str:
    return "\n".join(textwrap.wrap(paragraph, 100, break_long_words=False, break_on_hyphens=False))
