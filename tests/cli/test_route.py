"""Which words are ours, and which are Claude Code's."""

import subprocess
import sys

import pytest

from service.cli import misspelt, route
from tests.patience import PATIENCE_SECONDS

CASES = [
    ([], ["launch", "--"]),
    (["serve", "demo"], ["serve", "demo"]),
    (["serve", "--help"], ["serve", "--help"]),
    (["--help"], ["--help"]),
    (["-h"], ["-h"]),
    (["--version"], ["--version"]),
    (["-p", "stats"], ["launch", "--", "-p", "stats"]),
    (["-p", "--help"], ["launch", "--", "-p", "--help"]),
    (["--mode=vllm-mlx"], ["launch", "--mode=vllm-mlx", "--"]),
    (["--mode", "vllm-mlx", "-c"], ["launch", "--mode", "vllm-mlx", "--", "-c"]),
    (["--mode=vllm-mlx", "stats"], ["launch", "--mode=vllm-mlx", "--", "stats"]),
    (["--mode=vllm-mlx", "--help"], ["--help"]),
    (["-p", "x", "--mode=y"], ["launch", "--", "-p", "x", "--mode=y"]),
    (["--", "serve"], ["launch", "--", "serve"]),
    (["--", "--", "x"], ["launch", "--", "--", "x"]),
    (["what is this?"], ["launch", "--", "what is this?"]),
    ([""], ["launch", "--", ""]),
]


@pytest.mark.parametrize(("given", "routed"), CASES)
def test_route(given: list[str], routed: list[str]) -> None:
    assert route(given) == routed


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["statss"], "stats"),
        (["server"], "serve"),
        (["doctr"], "doctor"),
        (["stats"], None),
        (["mcp"], None),
        (["update"], None),
        (["hello"], None),
        ([], None),
        (["-p", "statss"], None),
        (["--", "statss"], None),
        (["explain server"], None),
    ],
)
def test_a_lone_word_that_nearly_names_a_command(given: list[str], command: str | None) -> None:
    assert misspelt(given) == command


HEAVY = ("mlx", "mlx_lm", "transformers", "starlette", "hypercorn", "numpy", "huggingface_hub", "diskcache")


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['anyclaude', *{arguments!r}]\n"
        "from service.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
