"""The Python source of the project, parsed once for all checks."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]

PRODUCT = ("service", "cache_backends")
WRITTEN = (*PRODUCT, "benchmarks")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class SourceFile(msgspec.Struct, frozen=True):
    """`nodes` are those of the whole syntax tree."""

    path: Path
    text: str
    nodes: tuple[ast.AST, ...]

    @property
    def place(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    def functions(self) -> Iterator[Function]:
        return (node for node in self.nodes if isinstance(node, Function))

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in self.nodes if isinstance(node, ast.ClassDef))

    def docstrings(self) -> Iterator[tuple[ast.Expr, str]]:
        """Docstrings, and the strings that explain a constant below it."""
        for node in self.nodes:
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                yield node, node.value.value

    def code_lines(self) -> int:
        """Lines that are neither blank, nor a comment, nor part of a docstring."""
        documented = {
            number for node, _ in self.docstrings() for number in range(node.lineno, (node.end_lineno or 0) + 1)
        }
        return sum(
            1
            for number, line in enumerate(self.text.splitlines(), 1)
            if line.strip() and not line.strip().startswith("#") and number not in documented
        )


def has_function(file: Path, name: str) -> bool:
    nodes = ast.walk(ast.parse(file.read_text()))
    return any(isinstance(node, Function) and node.name == name for node in nodes)


def source_files(*packages: str) -> list[SourceFile]:
    return [file for package in packages for file in _files_of(package)]


@cache
def _files_of(package: str) -> tuple[SourceFile, ...]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return tuple(SourceFile(path, text := path.read_text(), tuple(ast.walk(ast.parse(text)))) for path in paths)
