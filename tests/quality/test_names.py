"""One name stands for one thing."""

from collections import defaultdict

from tests.quality.bounds import SHARED_NAMES
from tests.quality.source import PRODUCT, SourceFile, source_files


def dialect_of(file: SourceFile) -> str:
    """Two protocols may have the same words for their messages, since no dialect imports another."""
    return file.path.parent.name if file.path.parent.parent.name == "dialects" else ""


def test_no_two_classes_have_the_same_name() -> None:
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in source_files(*PRODUCT):
        for node in file.classes():
            places[node.name].append((dialect_of(file), f"{file.place}:{node.lineno}"))
    shared = {
        name: [place for _, place in found]
        for name, found in places.items()
        if len(found) > 1 and ("" in dict(found) or len(dict(found)) < len(found))
    }
    assert not {name: found for name, found in shared.items() if name not in SHARED_NAMES}
