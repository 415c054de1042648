import json
import os
import shutil
from pathlib import Path

import pytest

from service.models.errors import InvalidModel
from service.models.fingerprint import REMEMBERED_BYTES, fingerprint
from tests.models.test_folder import write_model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
        "merges.txt",
        "tokenizer.model",
        "adapters.safetensors",
        "adapter_config.json",
        "TOKENIZER.JSON",
    ],
)
def test_every_file_that_changes_the_answer_changes_it(name: str, model: Path, home: Path) -> None:
    before = fingerprint(model, home)
    file = model / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((file.read_bytes() if file.exists() else b"") + b" ")
    assert fingerprint(model, home) != before


@pytest.mark.parametrize("name", ["README.md", ".hidden.json", "picture.png", "code.py", "other/config.json"])
def test_other_files_do_not(name: str, model: Path, home: Path) -> None:
    before = fingerprint(model, home)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("{}")
    assert fingerprint(model, home) == before


def test_the_name_of_a_file_counts(model: Path, home: Path) -> None:
    before = fingerprint(model, home)
    (model / "tokenizer.json").rename(model / "tokenizer_config.json")
    assert fingerprint(model, home) != before


def test_a_copy_elsewhere_has_the_same(model: Path, home: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "elsewhere" / "renamed")
    assert fingerprint(copy, home) == fingerprint(model, home) == fingerprint(model, tmp_path / "another home")


@pytest.mark.parametrize(("size", "again"), [(REMEMBERED_BYTES, False), (REMEMBERED_BYTES - 1, True)])
def test_only_small_files_are_read_again(size: int, again: bool, model: Path, home: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(bytes(size))
    before = fingerprint(model, home)
    (remembered,) = (home / "models" / ".digests").iterdir()
    digests = json.loads(remembered.read_bytes())
    digests[weights.name]["sha256"] = "0" * 64
    remembered.write_text(json.dumps(digests))
    assert (fingerprint(model, home) == before) is again


@pytest.mark.parametrize("size", [10, REMEMBERED_BYTES])
def test_an_edit_in_place_shows_whatever_its_times_are(size: int, model: Path, home: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(bytes(size))
    before = fingerprint(model, home)
    status = weights.stat()
    with weights.open("r+b") as file:
        file.write(b"x")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(model, home) != before


def test_damaged_memory_costs_only_time(model: Path, home: Path) -> None:
    before = fingerprint(model, home)
    (memory,) = (home / "models" / ".digests").iterdir()
    assert memory.stat().st_mode & 0o777 == 0o600
    for damage in (b"", b"[]", b"\xff", b'{"config.json": {}}'):
        memory.write_bytes(damage)
        assert fingerprint(model, home) == before


def test_a_home_that_cannot_be_written_costs_only_time(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("not a folder")
    assert fingerprint(model, home) == fingerprint(model, tmp_path / "good")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="gone"):
        fingerprint(tmp_path / "gone", tmp_path)
