import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models.demo import DEMO_MODEL
from service.models.errors import InvalidModel, ModelError, ModelNotThere
from service.models.location import resolve_model
from service.models.progress import Silent
from tests.models.hub_server import COMMIT, GATED, NAME, Hub, serve_hub
from tests.models.test_folder import WEIGHTS, write_model

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "README.md": b"words",
    "modeling_tiny.py": b"raise SystemExit('never fetched, never run')",
    "onnx/config.json": b"{}",
}

# The hub's client reads its variables when it is imported, so each case needs a process of its own.
RESOLVE = """
import sys
from pathlib import Path
from service.models.errors import ModelError
from service.models.errors import ModelNotThere
from service.models.location import resolve_model
from service.models.progress import Silent
try:
    print(resolve_model(sys.argv[1], Path(sys.argv[2]), Silent()))
except ModelError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(dict(FILES)) as server:
        yield server


def resolve(name: str, folder: Path, endpoint: str, **environment: str) -> str:
    """What resolving printed, with `folder / "home"` as ours and `folder / "hf"` as Hugging Face's own."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1", **environment}
    result = subprocess.run(
        [sys.executable, "-c", RESOLVE, name, str(folder / "home")],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return result.stdout.strip()


def test_a_hub_model_is_fetched_once_and_then_found_without_a_network(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "models" / NAME
    assert resolve(NAME, tmp_path, hub.endpoint) == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tiny.lock", "tiny"]
    assert resolve(NAME, tmp_path, "http://127.0.0.1:1") == str(folder)


def test_an_interrupted_fetch_is_invisible_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "models" / NAME
    outdated = folder.with_name(".tiny.older-revision.partial")
    outdated.mkdir(parents=True)
    hub.broken = "model.safetensors"
    assert "from Hugging Face failed" in resolve(NAME, tmp_path, hub.endpoint)
    assert not folder.exists()
    assert not outdated.exists()
    hub.broken = ""
    assert resolve(NAME, tmp_path, hub.endpoint) == str(folder)
    assert hub.fetched.count("config.json") == 1


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_a_power_failure_damaged_is_fetched_again(file: str, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "models" / NAME
    hub.broken = "tokenizer.json"
    assert "from Hugging Face failed" in resolve(NAME, tmp_path, hub.endpoint)
    damaged = folder.with_name(f".tiny.{COMMIT}.partial") / file
    damaged.write_bytes(bytes(len(FILES[file])))
    hub.broken = ""
    assert resolve(NAME, tmp_path, hub.endpoint) == str(folder)
    assert (folder / file).read_bytes() == FILES[file]
    assert hub.fetched.count(file) == 2


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_what_the_hub_lists_is_refused(file: str, hub: Hub, tmp_path: Path) -> None:
    hub.sent[file] = bytes(len(FILES[file]))
    told = resolve(NAME, tmp_path, hub.endpoint)
    assert told.startswith(
        f"FetchFailed {file} of {NAME} is not what Hugging Face lists, though it was fetched 2 times."
    )
    assert hub.fetched.count(file) == 2
    assert not (tmp_path / "home" / "models" / NAME).exists()


def test_a_mirror_without_digests_serves_a_model(hub: Hub, tmp_path: Path) -> None:
    hub.digests = False
    assert resolve(NAME, tmp_path, hub.endpoint) == str(tmp_path / "home" / "models" / NAME)


def test_what_hugging_faces_own_cache_holds_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    cached = tmp_path / "hf" / "hub" / "models--org--tiny"
    write_model(cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    assert resolve(NAME, tmp_path, hub.endpoint) == str(cached / "snapshots" / COMMIT)
    assert hub.fetched == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/unknown", "ModelNotThere Model path does not exist: org/unknown\nHugging Face has no model of this name"),
        ("org/a..b", "FetchFailed Model path does not exist: org/a..b\n"),
        (GATED, "FetchFailed org/gated is gated: accept its conditions"),
    ],
)
def test_what_the_hub_does_not_give_is_explained(name: str, message: str, hub: Hub, tmp_path: Path) -> None:
    assert resolve(name, tmp_path, hub.endpoint).startswith(message)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "offline"])
def test_without_a_network_the_path_is_still_named(variables: dict[str, str], tmp_path: Path) -> None:
    told = resolve("models/mine", tmp_path, "http://127.0.0.1:1", **variables)
    assert told.startswith(
        "FetchFailed Model path does not exist: models/mine\nmodels/mine is not on this machine, and "
    )
    assert "Hugging Face cannot be reached" in told


def test_a_hub_model_without_weights_for_mlx_is_refused_before_the_download(hub: Hub, tmp_path: Path) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")
    assert "has no model*.safetensors (found: pytorch_model.bin)" in resolve(NAME, tmp_path, hub.endpoint)
    assert hub.fetched == []


@pytest.mark.parametrize("name", [None, "demo"])
def test_no_name_is_the_demo(name: str | None, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models" / DEMO_MODEL.name)
    for file in ("generation_config.json", "tokenizer_config.json"):
        (folder / file).write_text("{}")
    (folder / "origin.json").write_bytes(DEMO_MODEL.origin)
    assert resolve_model(name, tmp_path, Silent()) == folder


def test_an_empty_name_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotThere, match="empty name"):
        resolve_model("", tmp_path, Silent())


def test_folders_are_taken_as_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_model(tmp_path / "org" / "model")
    write_model(tmp_path / "demo")
    (tmp_path / "link").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(model), "org/model", "~/org/model", "./org/../org/model"):
        assert resolve_model(name, tmp_path, Silent()) == model
    assert resolve_model("link", tmp_path, Silent()) == tmp_path / "link"
    assert resolve_model("./demo", tmp_path, Silent()) == tmp_path / "demo"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("/no/such/path", ModelNotThere, "^Model path does not exist: /no/such/path$"),
        ("nothing", ModelNotThere, "^Model path does not exist: nothing\n.* has no such folder"),
        (".", InvalidModel, "holds no weights"),
    ],
)
def test_wrong_paths_are_refused(
    name: str, kind: type[ModelError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        resolve_model(name, tmp_path / "home", Silent())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("qwen3:0.6b", "mlx-community/Qwen3-0.6B-4bit"),
        ("Qwen3-8B", "mlx-community/Qwen3-8B-4bit"),
        ("gpt-oss:20b", "mlx-community/gpt-oss-20b-MXFP4-Q8"),
        ("zzz", "'anyclaude models recommend' lists some."),
    ],
)
def test_a_name_of_another_kind_is_answered_with_hub_ids(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(ModelNotThere, match="is named ORGANISATION/NAME") as told:
        resolve_model(name, tmp_path, Silent())
    assert str(told.value).startswith(f"Model path does not exist: {name}\n")
    assert meant in str(told.value)
