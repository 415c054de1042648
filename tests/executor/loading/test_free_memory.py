from pathlib import Path

import pytest

from service.executor.loading.free_memory import container_memory_bytes, free_memory_bytes


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "1000\n", "memory.current": "400\n", "memory.stat": "anon 300\ninactive_file 90\n"}, 690),
        ({"memory.max": "1000\n", "memory.current": "1200\n"}, 0),
        ({"memory.max": "1000\n"}, None),
    ],
    ids=["no control group", "no limit", "a limit", "with droppable pages", "above it", "unreadable"],
)
def test_what_is_left_in_a_container(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert container_memory_bytes(tmp_path) == left


def test_free_memory_is_known_on_linux() -> None:
    free = free_memory_bytes()
    assert free is None or 0 < free < 2**50
