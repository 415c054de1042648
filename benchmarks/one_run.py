"""`python -m benchmarks.one_run CASE FOLDER [--quick]` runs one case once.

The caller owns FOLDER, reads the outcome from it, and removes it.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from benchmarks import cases
from benchmarks.case import Run, Unavailable

OUTCOME_FILE = "outcome.json"


class Outcome(msgspec.Struct, frozen=True):
    """`unavailable` is the reason why there are no values."""

    values: dict[str, float] = {}
    unavailable: str = ""


def main(name: str, folder: str, *flags: str) -> None:
    scratch = Path(folder, "scratch")
    scratch.mkdir()
    run = Run(scratch=scratch, quick="--quick" in flags)
    try:
        outcome = Outcome(values=asyncio.run(_measure(name, run)))
    except Unavailable as missing:
        outcome = Outcome(unavailable=str(missing))
    Path(folder, OUTCOME_FILE).write_bytes(msgspec.json.encode(outcome))


async def _measure(name: str, run: Run) -> dict[str, float]:
    return await cases.load(name).run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
