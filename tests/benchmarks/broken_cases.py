"""Cases that end without figures. `CASE` is chosen by the variable of the environment that the test sets."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.case import Case, Run, Unavailable
from tests.patience import PATIENCE_SECONDS


def start_child(pid_file: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pid_file.write_text(str(child.pid))


async def hang(run: Run) -> dict[str, float]:
    start_child(Path(os.environ["BROKEN_CASE_CHILD"]))
    await asyncio.sleep(600)
    return {}


async def fail(run: Run) -> dict[str, float]:
    raise ValueError("the peer answered something else")


async def miss(run: Run) -> dict[str, float]:
    raise Unavailable("redis-server is not installed: apt-get install redis-server")


RUNS = {"hang": hang, "fail": fail, "miss": miss}

CASE = Case(
    title="Broken", measures=(), run=RUNS[os.environ.get("BROKEN_CASE", "fail")], timeout_seconds=PATIENCE_SECONDS
)
