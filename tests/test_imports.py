"""The directions in which the code may import, read from the source itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FORBIDDEN = [
    ("cache_backends", ("service",)),
    ("service/generation.py", ("service", "starlette", "mlx")),
    ("service/events.py", ("service.executor", "service.dialects", "starlette", "mlx")),
    ("service/dialects", ("service.executor", "service.response_cache", "service.endpoints", "starlette", "hypercorn")),
    ("service/dialects/openai_chat", ("service.dialects.anthropic_messages",)),
    ("service/dialects/anthropic_messages", ("service.dialects.openai_chat",)),
    ("service/normalize.py", ("service.dialects", "service.executor", "starlette")),
    ("service/response_cache", ("service.endpoints", "service.dialects", "starlette", "mlx")),
    ("service/executor", ("service.endpoints", "service.dialects", "service.response_cache", "starlette")),
    ("service/executor/scheduler.py", ("mlx", "mlx_lm")),
    ("service/executor/protocols.py", ("mlx", "mlx_lm")),
    ("service/tool_calling", ("service.executor", "service.dialects", "starlette", "mlx")),
    ("service/models", ("service.endpoints", "service.dialects", "service.response_cache", "starlette")),
    ("service/endpoints", ("mlx", "mlx_lm", "hypercorn")),
]


def sources(place: str) -> list[Path]:
    path = ROOT / place
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    return [path] if path.is_file() else [path.with_suffix(".py")]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("place", "forbidden"), FORBIDDEN, ids=[place for place, _ in FORBIDDEN])
def test_imports_go_one_way(place: str, forbidden: tuple[str, ...]) -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(place)
        for name in imports(path)
        if any(name == prefix or name.startswith(prefix + ".") for prefix in forbidden)
    ]
    assert not found


def test_mlx_is_imported_in_two_folders_only() -> None:
    allowed = ("service/executor/", "service/models/")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("service", "cache_backends")
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in ("mlx", "mlx_lm")
    }
    assert not [path for path in found if not path.startswith(allowed)]
