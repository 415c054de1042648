"""How long and how wide the source is, and which way it may not import."""

import ast
import re
from collections.abc import Iterator

from tests.quality.bounds import LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS, PROTOCOLS
from tests.quality.source import PRODUCT, WRITTEN, Function, SourceFile, source_files

VAGUE_MODULES = {"util", "utils", "helper", "helpers", "manager", "misc", "common"}


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_file_is_long() -> None:
    long = {file.place: lines for file in source_files(*WRITTEN) if (lines := file.text.count("\n")) > LONGEST_FILE}
    assert not long, f"Split these files; {LONGEST_FILE} lines is the limit."


def test_no_function_is_long() -> None:
    long = {
        f"{file.place}:{function.lineno} {function.name}": length(function)
        for file in source_files(*WRITTEN)
        for function in file.functions()
        if length(function) > LONGEST_FUNCTION
    }
    assert not long, f"Split these functions; {LONGEST_FUNCTION} lines is the limit."


def test_no_function_has_many_parameters() -> None:
    wide = {
        f"{file.place}:{function.lineno} {function.name}": parameters(function)
        for file in source_files(*WRITTEN)
        for function in file.functions()
        if parameters(function) > MOST_PARAMETERS
    }
    assert not wide, f"Pass a Struct; {MOST_PARAMETERS} parameters is the limit."


def test_no_module_keeps_state() -> None:
    found = [
        f"{file.place}:{node.lineno}"
        for file in source_files(*WRITTEN)
        for node in file.nodes
        if isinstance(node, ast.Global)
    ]
    assert not found, "Pass the state to the function instead of using `global`."


def test_nothing_is_marked_as_unfinished() -> None:
    found = [
        f"{file.place}:{number}"
        for file in source_files(*WRITTEN)
        for number, line in enumerate(file.text.splitlines(), 1)
        if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b", line)
    ]
    assert not found


def test_every_module_has_a_name_that_means_something() -> None:
    assert not [file.place for file in source_files(*WRITTEN) if file.path.stem in VAGUE_MODULES]


def test_protocols_are_few() -> None:
    found = [
        f"{file.place}:{node.name}"
        for file in source_files(*PRODUCT)
        for node in file.classes()
        if any(ast.unparse(base).split("[")[0] in ("Protocol", "typing.Protocol") for base in node.bases)
    ]
    assert len(found) <= PROTOCOLS, f"Use the class itself, or a Callable, instead of one of {found}."


def imported(file: SourceFile, modules: set[str]) -> Iterator[str]:
    for node in file.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            yield from submodules
            if node.module in modules and len(submodules) < len(node.names):
                yield node.module


def first_circle(imports: dict[str, list[str]]) -> list[str]:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        circles = (visit(name, [*path, module]) for name in imports[module])
        found = next((circle for circle in circles if circle), [])
        done.add(module)
        return found

    return next((circle for module in imports if (circle := visit(module, []))), [])


def test_no_imports_go_in_a_circle() -> None:
    files = source_files(*WRITTEN)
    modules = {file.module for file in files}
    imports = {file.module: [name for name in imported(file, modules) if name != file.module] for file in files}
    assert not first_circle(imports)


def test_a_circle_of_imports_is_found() -> None:
    assert first_circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert first_circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
