"""A case that takes no time: its figures are known, and it shows what the runner gives it."""

import os

from benchmarks.case import Case, Measure, Run
from tests.patience import PATIENCE_SECONDS


async def run(run: Run) -> dict[str, float]:
    return {
        "ratio": 1.25,
        "rate": 0.5,
        "process": float(os.getpid()),
        "rounds": float(run.pick(20, 2)),
        "scratch": float(run.scratch.is_dir()),
    }


CASE = Case(
    title="A trivial case",
    measures=(
        Measure(name="ratio", at_most=1.35),
        Measure(name="rate", at_least=0.75),
        Measure(name="process", unit=""),
        Measure(name="rounds", unit="rounds"),
        Measure(name="scratch", unit="folders"),
    ),
    run=run,
    timeout_seconds=PATIENCE_SECONDS,
)
