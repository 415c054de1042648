from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claude_code.agent_model import CACHE, ensure_agent_model
from tests.server_process import ServerProcess, serving


@pytest.fixture(scope="package")
def demo_server(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("demo") / "server", str(demo_model)) as server:
        yield server


@pytest.fixture(scope="package")
def agent_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A model that can call tools, and do nothing else."""
    with serving(tmp_path_factory.mktemp("agent") / "server", str(ensure_agent_model(CACHE))) as server:
        yield server


@pytest.fixture(scope="package")
def scripted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Repeats the last user message."""
    with serving(tmp_path_factory.mktemp("scripted") / "server", "--executor", "scripted") as server:
        yield server
