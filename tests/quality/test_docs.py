"""The pages keep their links, their width, and examples that run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.quality.source import ROOT, has_function

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WIDTH = 100

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", without_code(page)):
        path, anchor = link
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), link


@each_page
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:service|cache_backends|benchmarks|tests|docs|scripts|deploy)/[\w./-]+)`", page.read_text()
    )
    assert not [path for path in named if not (ROOT / path).exists()]


@each_page
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    assert not [f"{file}::{name}" for file, name in named if not has_function(ROOT / file, name)]


@each_page
def test_lines_are_short(page: Path) -> None:
    lines = without_code(page).splitlines()
    assert not [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "!["))]


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
def test_examples_in_python_run(example: str, tmp_path: Path) -> None:
    example = example.replace("/tmp/", f"{tmp_path}/").replace("Path.home()", f"Path({str(tmp_path)!r})")
    subprocess.run([sys.executable, "-c", example], cwd=ROOT, check=True, timeout=PATIENCE_SECONDS)
