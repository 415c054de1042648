"""Runs a case several times, each time in a fresh process, and takes the medians."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.case import Case, Figure, Measure, Result, Unavailable
from benchmarks.environment import read_environment
from benchmarks.one_run import OUTCOME_FILE, Outcome
from benchmarks.processes import last_lines

PROJECT = Path(__file__).parents[1]
QUICK_RUNS = 1


class RunFailed(Exception):
    """The message includes the end of the run's output."""


def run_case(name: str, case: Case, *, quick: bool, after_run: Callable[[], None]) -> Result:
    """Blocks. Raises `RunFailed` or `Unavailable`."""
    runs = []
    for _ in range(run_count(case, quick=quick)):
        runs.append(_run_once(name, case.timeout_seconds, quick=quick))
        after_run()
    return Result(
        case=name,
        title=case.title,
        quick=quick,
        environment=read_environment(),
        figures=tuple(_figure(measure, [values[measure.name] for values in runs]) for measure in case.measures),
    )


def run_count(case: Case, *, quick: bool) -> int:
    return QUICK_RUNS if quick else case.runs


def _figure(measure: Measure, values: list[float]) -> Figure:
    median = statistics.median(values)
    return Figure(
        name=measure.name,
        unit=measure.unit,
        target=measure.target,
        values=tuple(values),
        median=median,
        verdict=measure.judge(median),
    )


def _run_once(name: str, timeout_seconds: float, *, quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="anyclaude-benchmark-") as folder:
        log = Path(folder, "log")
        command = [sys.executable, "-m", "benchmarks.one_run", name, folder, *(["--quick"] if quick else [])]
        with log.open("wb") as output:
            # A session of its own, so that its servers can be ended with it.
            process = subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=output, start_new_session=True)
            try:
                code = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                raise RunFailed(f"{name} did not end within {timeout_seconds:g} seconds.\n{last_lines(log)}") from None
            finally:
                _end_session(process)
        if code != 0:
            raise RunFailed(f"{name} ended with exit code {code}.\n{last_lines(log)}")
        outcome = msgspec.json.decode(Path(folder, OUTCOME_FILE).read_bytes(), type=Outcome)
    if outcome.unavailable:
        raise Unavailable(outcome.unavailable)
    return outcome.values


def _end_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
