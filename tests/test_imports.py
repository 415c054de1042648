"""The directions in which the code may import, read from the source itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ARCHITECTURE = ROOT / "docs" / "architecture.md"

LIBRARIES = ("starlette", "hypercorn", "h11")
HTTP = (*LIBRARIES, "service.http", "service.endpoints", "service.app", "service.server")
MLX = ("mlx", "mlx_lm")
EVERY_EXECUTOR = tuple(
    f"service.executor.{path.stem}"
    for path in sorted((ROOT / "service" / "executor").iterdir())
    if path.stem.isidentifier() and not path.stem.startswith("__") and path.stem != "base"
)
EVERY_KIND = (*EVERY_EXECUTOR, "cache_backends", *MLX)
RESPONSE_CACHE_INSIDE = tuple(
    f"service.response_cache.{path.stem}"
    for path in sorted((ROOT / "service" / "response_cache").glob("*.py"))
    if path.stem not in ("__init__", "base", "statistics")
)

FORBIDDEN = [
    ("service/generation.py", ("service", "cache_backends", *HTTP, *MLX)),
    ("service/profile.py", ("service.executor", "service.models", "service.response_cache", *HTTP, *MLX)),
    ("service/tallies.py", ("service", *MLX)),
    ("service/events.py", ("service.executor", "service.dialects", "service.response_cache", *HTTP, *MLX)),
    ("service/dialects", ("service.executor", "service.response_cache", "cache_backends", *HTTP, *MLX)),
    ("service/dialects/openai_chat", ("service.dialects.anthropic_messages", "service.dialects.openai_responses")),
    ("service/dialects/openai_completions", ("service.dialects.anthropic_messages", "service.dialects.openai_chat")),
    ("service/dialects/openai_embeddings", ("service.dialects.anthropic_messages", "service.dialects.openai_chat")),
    ("service/dialects/openai_responses", ("service.dialects.anthropic_messages", "service.dialects.openai_chat")),
    ("service/dialects/anthropic_messages", ("service.dialects.openai_chat", "service.dialects.openai_responses")),
    ("service/normalize.py", ("service.dialects", "service.executor", *HTTP)),
    ("service/response_cache", ("service.dialects", *HTTP, *MLX)),
    ("cache_backends", ("service",)),
    ("service/executor", ("service.dialects", "service.response_cache", *HTTP)),
    ("service/executor/scheduling", MLX),
    ("service/executor/loading", ("service.executor.distributed",)),
    ("service/tool_calling", ("service.executor", "service.dialects", *HTTP, *MLX)),
    ("service/keep_awake.py", ("service.executor", "service.models", "service.cli", *HTTP, *MLX)),
    ("service/device", ("service.executor", "service.models", "service.cli", *HTTP, *MLX)),
    ("service/storage.py", ("service", *MLX)),
    ("service/models", ("service.dialects", "service.executor", "service.response_cache", *HTTP)),
    ("service/model_registry", ("service.dialects", *HTTP, *MLX)),
    ("service/recording", ("service.dialects", *HTTP, *MLX)),
    ("service/telemetry", ("service.dialects", *LIBRARIES, *RESPONSE_CACHE_INSIDE, *EVERY_KIND)),
    ("service/dashboard", ("service.dialects", *LIBRARIES, *EVERY_KIND)),
    (
        "service/web_search",
        ("service.endpoints", "service.app", "service.server", "starlette", *RESPONSE_CACHE_INSIDE, *EVERY_KIND),
    ),
    ("service/agents", ("service.cli", "service.executor", "service.dialects", *HTTP, *MLX)),
    ("service/endpoints", ("service.cli", *EVERY_KIND)),
    ("service/http", ("service.endpoints", "service.app", *RESPONSE_CACHE_INSIDE, *EVERY_KIND)),
    ("service/app.py", ("service.server", *MLX)),
    ("service/server", MLX),
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
    assert sources(place)
    assert not found


def test_every_place_of_the_architecture_that_must_not_know_something_has_a_rule() -> None:
    rows = [line.split("|") for line in ARCHITECTURE.read_text().splitlines() if line.startswith("| `")]
    limited = [places for _, places, _, unknown, _ in rows if unknown.strip()]
    named = {place.rstrip("/") for places in limited for place in re.findall("`(.+?)`", places)}
    assert "service/storage.py" in named
    assert named <= {place for place, _ in FORBIDDEN}


@pytest.mark.parametrize(
    ("libraries", "allowed"),
    [
        (MLX, ("service/executor/", "service/models/")),
        (("hypercorn", "h11", "h2"), ("service/server/",)),
    ],
    ids=["mlx", "http"],
)
def test_a_library_is_imported_in_its_folders_only(libraries: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("service", "cache_backends")
        for path in (ROOT / folder).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in libraries
    }
    assert found
    assert not [path for path in found if not path.startswith(allowed)]


def test_no_request_can_fetch_a_model() -> None:
    """Only the command line fetches. What answers requests cannot reach the code that does."""
    fetching = ("service.models.hub", "service.models.demo", "service.models.wheel", "service.models.location")
    answering = [folder.name for folder in (ROOT / "service").iterdir() if folder.name not in ("cli", "models")]
    assert "executor" in answering
    assert not [
        f"{path.relative_to(ROOT)} imports {name}"
        for place in answering
        for path in sources(f"service/{place}")
        for name in imports(path)
        if name.startswith(fetching) or name == "huggingface_hub"
    ]
