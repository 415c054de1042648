"""The folder where the user works never provides modules to our own Python."""

import ast
import re
from pathlib import Path

import pytest

from tests.quality.source import PRODUCT, ROOT, source_files

SCRIPTS = sorted((ROOT / "scripts").rglob("*.sh"))
FIRST_OPTION = re.compile(r'(?:\$python|\$PYTHON|\$1|/python3?)"? (-\S*)')


def names_executable(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "sys" and any(alias.name in ("executable", "*") for alias in node.names)
    return isinstance(node, ast.Attribute) and node.attr == "executable"


def test_only_one_module_starts_python() -> None:
    naming = [file.place for file in source_files(*PRODUCT) if any(map(names_executable, file.nodes))]
    assert naming == ["service/own_python.py"]


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("sys.executable", True),
        ("from sys import executable", True),
        ("from sys import executable as python", True),
        ("from sys import *", True),
        ("import sys", False),
        ("from sys import path", False),
    ],
)
def test_the_rule_finds_every_way_to_name_it(code: str, named: bool) -> None:
    assert any(map(names_executable, ast.walk(ast.parse(code)))) == named


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_isolate_the_python_that_they_start(script: Path) -> None:
    assert set(FIRST_OPTION.findall(script.read_text())) <= {"-I"}


def test_scripts_start_python() -> None:
    assert sum(len(FIRST_OPTION.findall(script.read_text())) for script in SCRIPTS) > 10
