"""One name stands for one thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from tests.quality.source import PRODUCT, SourceFile, source_files


def names(file: SourceFile) -> Iterator[str]:
    """Classes, and the aliases of types at the top of a module."""
    yield from (node.name for node in file.classes())
    module = file.nodes[0]
    assert isinstance(module, ast.Module)
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and re.match("[A-Z][a-z]", target.id):
            yield target.id


def dialect_of(file: SourceFile) -> str:
    """Two protocols may have the same words for their messages, since no dialect imports another."""
    return file.path.parent.name if file.path.parent.parent.name == "dialects" else ""


def test_one_name_stands_for_one_class_or_type() -> None:
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in source_files(*PRODUCT):
        for name in names(file):
            places[name].append((dialect_of(file), file.place))
    assert not {
        name: [place for _, place in found]
        for name, found in places.items()
        if len(found) > 1 and ("" in dict(found) or len(dict(found)) < len(found))
    }
