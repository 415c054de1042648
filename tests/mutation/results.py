from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

RESULTS = Path("results.jsonl")


class Result(msgspec.Struct, frozen=True):
    """`by` is the test that noticed the mutant. A test that did not end noticed it too. `left` counts the tests that
    reach it and had no time."""

    mutant: str
    outcome: Literal["killed", "survived", "reached by no test"]
    by: str = ""
    left: int = 0


def function_of(mutant: str) -> str:
    return mutant.rpartition("__mutmut_")[0]


def module_of(mutant: str) -> str:
    return mutant.partition(".x")[0]


def read_results(path: Path) -> list[Result]:
    if not path.exists():
        return []
    return list({each.mutant: each for each in map(_decode, path.read_bytes().splitlines())}.values())


def table(results: Iterable[Result]) -> str:
    """The survivors and a Markdown table. `mutmut show NAME` prints a mutant."""
    results = list(results)
    by_module: dict[str, Counter[str]] = {}
    for result in results:
        by_module.setdefault(module_of(result.mutant), Counter())[result.outcome] += 1
    lines = sorted(result.mutant for result in results if result.outcome != "killed")
    lines += ["", "| module | tried | killed | survived | reached by no test |", "|---|---|---|---|---|"]
    for module, counts in sorted(by_module.items()):
        cells = (counts.total(), *(counts[outcome] for outcome in ("killed", "survived", "reached by no test")))
        lines.append(f"| `{module}` | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _decode(line: bytes) -> Result:
    return msgspec.json.decode(line, type=Result)
