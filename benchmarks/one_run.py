"""Runs one case once: the fresh process. `python -m benchmarks.one_run CASE RESULT_FILE [--quick]`"""

import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks import cases
from benchmarks.case import Run, Unavailable


class Outcome(msgspec.Struct, frozen=True):
    """What the process leaves for the runner: values by measure, or why there are none."""

    values: dict[str, float] = {}
    unavailable: str = ""


def main(name: str, result_file: str, *flags: str) -> None:
    with tempfile.TemporaryDirectory(prefix="anyclaude-benchmark-") as scratch:
        run = Run(scratch=Path(scratch), quick="--quick" in flags)
        try:
            outcome = Outcome(values=asyncio.run(_measure(name, run)))
        except Unavailable as missing:
            outcome = Outcome(unavailable=str(missing))
    Path(result_file).write_bytes(msgspec.json.encode(outcome))


async def _measure(name: str, run: Run) -> dict[str, float]:
    return await cases.load(name).run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
