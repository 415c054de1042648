from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from service.models.errors import InvalidModel, ModelError, ModelNotThere
from service.models.folder import read_json, require_mlx_model

WEIGHTS = save({"a.weight": np.ones((4, 8), dtype=np.float32), "b.weight": np.ones(3, dtype=np.float16)})
INDEX = "model.safetensors.index.json"


def write_model(folder: Path) -> Path:
    """The least that counts as a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def swap(folder: Path, new_name: str) -> None:
    (folder / "model.safetensors").rename(folder / new_name)


def test_a_model_is_accepted(tmp_path: Path) -> None:
    require_mlx_model(write_model(tmp_path))


def test_shards_are_accepted(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    swap(folder, "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text('{"weight_map": {"a.weight": "model-00001-of-00001.safetensors"}}')
    require_mlx_model(folder)


DEFECTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), "hold one JSON object"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "hold one JSON object"),
    "config without a type": (
        lambda f: (f / "config.json").write_text("{}"),
        'to name its architecture in "model_type"',
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "holds no weights .found: config.json, tokenizer.json",
    ),
    "PyTorch": (lambda f: swap(f, "pytorch_model.bin"), "PyTorch weights .pytorch_model.bin.*mlx_lm.convert"),
    "GGUF": (lambda f: swap(f, "model.Q4.gguf"), "GGUF file .model.Q4.gguf.*mlx_lm.convert --hf-path"),
    "other name": (lambda f: swap(f, "consolidated.safetensors"), "does not look for .consolidated.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    "a shard is missing": (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'),
        "lacks 1 of its 2 weight files .model-2.safetensors",
    ),
    "a broken index": (lambda f: (f / INDEX).write_text("[]"), "to map tensors to files"),
    "cut off": (lambda f: (f / "model.safetensors").write_bytes(WEIGHTS[:-1]), f"expected {len(WEIGHTS)} bytes"),
    "no header": (lambda f: (f / "model.safetensors").write_bytes(b"<html>not found</html>"), "no safetensors header"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "no safetensors header"),
    "Git LFS": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "Git LFS pointer.*git lfs pull",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_folder_that_mlx_cannot_load_is_refused(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(InvalidModel, match=message):
        require_mlx_model(folder)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("missing", ModelNotThere, "^Model path does not exist: .*/missing$"),
        ("model.gguf", InvalidModel, "is a GGUF file: .*mlx_lm.convert"),
        ("notes.txt", InvalidModel, "is a file: .* Give the folder"),
    ],
)
def test_what_is_no_folder_is_refused(name: str, kind: type[ModelError], message: str, tmp_path: Path) -> None:
    if name != "missing":
        (tmp_path / name).touch()
    with pytest.raises(kind, match=message):
        require_mlx_model(tmp_path / name)


@given(content=st.binary(max_size=200))
def test_any_bytes_for_weights_are_refused_in_words(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_model(tmp_path_factory.mktemp("bytes"))
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"model\.safetensors is"):
        require_mlx_model(folder)


@given(length=st.integers(0, len(WEIGHTS) - 1))
def test_every_cut_is_noticed(length: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_model(tmp_path_factory.mktemp("cut"))
    (folder / "model.safetensors").write_bytes(WEIGHTS[:length])
    with pytest.raises(InvalidModel):
        require_mlx_model(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"nul", b'"text"'])
def test_json_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_a_missing_optional_file_is_empty(tmp_path: Path) -> None:
    assert read_json(tmp_path / "x.json") == {}
    (tmp_path / "x.json").write_bytes(msgspec.json.encode({"a": 1}))
    assert read_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize("name", ["config.json", INDEX, "model.safetensors"])
def test_a_device_among_the_files_of_a_model_is_not_read(tmp_path: Path, name: str) -> None:
    """A cloned repository may bring a folder with links to devices."""
    folder = write_model(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/null")
    with pytest.raises(InvalidModel, match="expected a regular file, found a device"):
        require_mlx_model(folder)


def test_a_file_that_cannot_be_read_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InvalidModel, match=r"config\.json cannot be read: Is a directory"):
        read_json(tmp_path / "config.json")
