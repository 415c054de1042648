"""`python -m tests.mutation [PATTERN ...]`, as in `service.response_cache.key*`: tries the mutants that `mutants/` has
no result of yet. `pyproject.toml` has the code to change and the tests."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import msgspec
from mutmut.__main__ import create_file_mutants
from mutmut.configuration import config
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_source_files

from tests.mutation.plugin import PLAN, Plan
from tests.mutation.results import RESULTS, read_results, table

# Tests that sync files to a disk are several times as fast in memory.
MEMORY = Path("/dev/shm")


def make_mutants() -> None:
    """Makes those of changed files anew."""
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    for path in walk_source_files():
        made = create_file_mutants(path)
        if made.error is not None:
            raise made.error


def start(job: int, plan: Plan) -> subprocess.Popen[bytes]:
    arguments = [*config().pytest_add_cli_args, *config().pytest_add_cli_args_test_selection]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--rootdir=.", "-p", "tests.mutation.plugin", *arguments]
    environment = {
        **os.environ,
        PLAN: msgspec.json.encode(msgspec.structs.replace(plan, job=job)).decode(),
        "ANYCLAUDE_SEEDS": "10",
        "PYTEST_XDIST_WORKER": f"gw{job}",  # for ports of its own
    }
    if MEMORY.is_dir():
        environment["TMPDIR"] = str(MEMORY)
    return subprocess.Popen(command, cwd="mutants", env=environment)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.mutation")
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN", help="names of mutants, with * and ?")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tried at the same time")
    parser.add_argument("--seconds", type=float, default=3.0, help="for the tests of one mutant, the fastest first")
    parser.add_argument("--survivors", action="store_true", help="try those that survived once more, too")
    plan = msgspec.convert(vars(parser.parse_args()), Plan)
    make_mutants()
    ended = [process.wait() for process in [start(job, plan) for job in range(plan.jobs)]]
    print(table(read_results(Path("mutants") / RESULTS)))
    return max(ended)


if __name__ == "__main__":
    sys.exit(main())
