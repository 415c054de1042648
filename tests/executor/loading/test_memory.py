from pathlib import Path

import pytest

from service.executor.loading.memory import CacheCost, LayerCost, container_memory_bytes, free_memory_bytes

ATTENTION = LayerCost(per_token=100)
WINDOW = LayerCost(per_token=100, window=300)
RECURRENT = LayerCost(fixed=5000)


@pytest.mark.parametrize(
    ("layers", "lengths", "expected"),
    [
        ((ATTENTION,), [], 0),
        ((ATTENTION,), [1], 256 * 100),
        ((ATTENTION,), [256], 256 * 100),
        ((ATTENTION,), [257], 512 * 100),
        ((ATTENTION,) * 3, [1000], 3 * 1024 * 100),
        ((ATTENTION,), [1000, 10], 2 * 1024 * 100),
        ((WINDOW,), [200], 256 * 100),
        ((WINDOW,), [100_000], 300 * 100),
        ((RECURRENT,), [100_000, 1], 2 * 5000),
        ((ATTENTION, WINDOW, RECURRENT), [1024], 1024 * 100 + 300 * 100 + 5000),
    ],
    ids=[
        "nothing", "a token takes a step", "a full step", "a step begun", "layers", "as long as the longest",
        "in the window", "beyond the window", "recurrent", "hybrid",
    ],
)  # fmt: skip
def test_what_sequences_take(layers: tuple[LayerCost, ...], lengths: list[int], expected: int) -> None:
    assert CacheCost(layers).bytes_for(lengths) == expected


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
