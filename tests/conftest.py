"""Markers and models for all tests. Fixtures for one folder are in that folder's conftest.py."""

import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from benchmarks.tiny_model import write_tiny_model
from service.logs import OURS, ServiceHandler
from service.models.blas import load_openblas
from service.models.demo import DemoModel, ensure_demo
from service.models.progress import Silent

if "PYTEST_XDIST_WORKER" in os.environ:
    # OpenBLAS threads spin while they wait. With two test processes on two cores, they would mostly spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Tests compare tokens of batches, lone sequences and kept states. A GPU has other kernels for each, which differ in the
# last bits. Engine processes inherit the variable.
os.environ.setdefault("ANYCLAUDE_DEVICE", "cpu")

# Shells start background jobs that ignore Ctrl-C, and so would all processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# This must precede the first import of MLX. Without it, tests with real models take ten times as long on Linux.
load_openblas()

# Examples have no deadline: in a new clone, Hypothesis first writes its tables of Unicode.
hypothesis.settings.register_profile(
    "any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# For `make test-fast`.
hypothesis.settings.register_profile(
    "fast", parent=hypothesis.settings.get_profile("any speed"), max_examples=10, stateful_step_count=20
)
hypothesis.settings.load_profile("any speed")


# `make test-fast` leaves out the tests with these markers: those in a place, and those that use a fixture.
MARKED_PLACES = {
    "tests/agents/": "client",
    "tests/benchmarks/test_runner.py": "process",
    "tests/chat_templates/": "model",
    "tests/claude_code/": "client",
    "tests/cli/test_quick_start_scripts.py": "process",
    "tests/cli/test_working_folder.py": "process",
    "tests/clients/": "client",
    "tests/crash/": "process",
    "tests/deployment/": "deployment",
    "tests/executor/engine/test_solo.py": "model",
    "tests/executor/engine/test_undo.py": "model",
    "tests/executor/loading/test_batching.py": "model",
    "tests/executor/models/": "model",
    "tests/executor/prefix/test_engine.py": "model",
    "tests/executor/speculation/test_forced.py": "model",
    "tests/executor/process/test_engine_process.py": "process",
    "tests/executor/process/test_kills.py": "process",
    "tests/executor/process/test_lost_answers.py": "process",
    "tests/executor/process/test_quarantine.py": "process",
    "tests/executor/process/test_time_slices.py": "process",
    "tests/executor/test_reasoning_end.py": "model",
    "tests/history/": "process",
    "tests/model_registry/test_identification.py": "process",
    "tests/model_registry/test_residency.py": "process",
    "tests/model_registry/test_waiting.py": "process",
    "tests/models/test_demo.py": "process",
    "tests/models/test_location.py": "process",
    "tests/models/test_wheel.py": "process",
    "tests/tool_calling/test_outputs.py": "exhaustive",
}
CLIENTS = "tests/clients/"
MARKED_FIXTURES = {"chrome": "browser", "demo_model": "model", "tiny_demo": "process", "terminal": "process"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Does not import the tests of a place that the run leaves out."""
    place = collection_path.relative_to(config.rootpath).as_posix()
    unwanted = re.findall(r"\bnot (\w+)", config.option.markexpr)
    return True if MARKED_PLACES.get(place, MARKED_PLACES.get(f"{place}/")) in unwanted else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        """The clients' tests share three servers, so one process runs them all."""

        def _split_scope(self, nodeid: str) -> str:
            return CLIENTS if nodeid.startswith(CLIENTS) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for place, marker in MARKED_PLACES.items():
            if item.nodeid.startswith(place):
                item.add_marker(marker)
        for fixture, marker in MARKED_FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model, kept between runs where the service itself keeps it."""
    home = os.environ.get("ANYCLAUDE_HOME")
    return ensure_demo(Path(home) if home else Path.home() / ".anyclaude", Silent())


@pytest.fixture(scope="session")
def tiny_model(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that costs next to nothing, with the demo model's tokenizer."""
    return write_tiny_model(demo_model, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that plays the package index."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="session")
def tiny_demo(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoModel:
    """A model like the demo, which pip finds on the shelf."""
    from tests.models.tiny_gguf import write_gguf, write_wheel  # imports MLX

    return write_wheel(shelf, write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """What `configure` has set is taken back after the test."""
    yield
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, ServiceHandler)]:
        root.removeHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)
