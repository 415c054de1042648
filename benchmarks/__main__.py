import signal
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import cases
from benchmarks.case import Case, Result, Unavailable
from benchmarks.report import conditions, insert, publish, terminal_table
from benchmarks.runner import RunFailed, run_case, run_count

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[CASE]...", nargs=-1, type=click.Choice(cases.names()))
@click.option(
    "--quick", is_flag=True, help="One short run of each: shows that it works. Its figures are not published."
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Where the JSON goes; then docs/benchmarks.md stays as it is."
)
def benchmarks(names: tuple[str, ...], quick: bool, output: Path | None) -> None:
    """Run the benchmarks, or those named. Exit code 1: a case failed, or a full run missed a target."""
    # SIGTERM exits through `sys.exit`, so that the processes of a run are ended as they are on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    chosen = {name: cases.load(name) for name in names or cases.names()}
    passed = True
    with _progress(console) as progress:
        task = progress.add_task("", total=sum(run_count(case, quick=quick) for case in chosen.values()))
        for name, case in chosen.items():
            progress.update(task, description=name)
            try:
                result = run_case(name, case, quick=quick, after_run=lambda: progress.advance(task))
            except Unavailable as missing:
                console.print(f"[yellow]{name} was not run:[/] {missing}")
                continue
            except RunFailed as failure:
                console.print(f"[bold red]{name} failed:[/] {failure}", highlight=False)
                passed = False
                continue
            console.print(terminal_table(result, case))
            passed = passed and (quick or all(figure.verdict != "missed" for figure in result.figures))
            store(result, case, output, DOCUMENT)
    sys.exit(0 if passed else 1)


def store(result: Result, case: Case, output: Path | None, document: Path) -> None:
    """Writes the JSON. A full run without `output` also updates the project's own results and `document`."""
    if result.quick and output is None:
        return
    folder = output or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.case}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if output is None:
        publish(result, case, document)
        results = [msgspec.json.decode(path.read_bytes(), type=Result) for path in folder.glob("*.json")]
        document.write_text(insert(document.read_text(), "conditions", conditions(results)))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


if __name__ == "__main__":
    benchmarks.main(prog_name="python -m benchmarks")
