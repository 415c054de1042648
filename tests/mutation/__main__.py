"""`python -m tests.mutation [PATTERN ...]`, as in `service.response_cache.key*`: tries the mutants that `mutants/` has
no result of yet. `pyproject.toml` has the code to change and the tests."""

import os
import subprocess
import sys
from pathlib import Path

from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_file_mutants, walk_source_files
from mutmut.configuration import config
from mutmut.mutation.trampoline import set_mutant_under_test

from tests.mutation.plugin import PATTERNS
from tests.mutation.results import RESULTS, read_results, table


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


def main(patterns: list[str]) -> int:
    make_mutants()
    arguments = [*config().pytest_add_cli_args, *config().pytest_add_cli_args_test_selection]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--rootdir=.", "-p", "tests.mutation.plugin", *arguments]
    environment = {**os.environ, PATTERNS: "\n".join(patterns or ["*"]), "ANYCLAUDE_SEEDS": "10"}
    ended = subprocess.run(command, cwd="mutants", env=environment, check=False)
    print(table(read_results(Path("mutants") / RESULTS)))
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
