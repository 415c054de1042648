"""The JSON Schema that editors use says the same as the reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from service.config import ConfigError
from service.config.layers import file_layer
from service.config.schema import build_example, build_schema, render_schema
from tests.config.test_config import FILE_VALUES, WRONG_FILES

PROJECT = Path(__file__).parents[2]


def test_the_committed_schema_is_the_one_of_the_settings() -> None:
    assert (PROJECT / "anyclauderc.schema.json").read_text() == render_schema(), (
        "settings have changed: run 'python -m service.config.schema > anyclauderc.schema.json'"
    )


def test_the_schema_is_valid_and_accepts_the_example() -> None:
    Draft202012Validator.check_schema(build_schema())
    Draft202012Validator(build_schema()).validate(json.loads((PROJECT / ".anyclauderc.example.json").read_text()))


@pytest.mark.parametrize("document", [document for document, _, _ in FILE_VALUES])
def test_what_the_reader_accepts_is_valid(document: Any) -> None:
    Draft202012Validator(build_schema()).validate(document)


BEYOND_A_SCHEMA = ("baseUrl", "host", "enabled")


@pytest.mark.parametrize(
    "document",
    [d for d, key, _ in WRONG_FILES if not isinstance(d, str) and key.split(".")[-1] not in BEYOND_A_SCHEMA],
)
def test_what_the_reader_refuses_is_invalid(document: Any, tmp_path: Path) -> None:
    path = tmp_path / ".anyclauderc.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError):
        file_layer(path, path.read_bytes())
    assert not Draft202012Validator(build_schema()).is_valid(document)


def test_the_file_of_defaults_is_valid_and_changes_nothing() -> None:
    example = json.loads(json.dumps(build_example()))
    Draft202012Validator(build_schema()).validate(example)
    assert example["backends"]["vllm-mlx"]["prefixCache"] == {"memory": None, "disk": "20GiB"}
    assert example["backends"]["vllm-mlx"]["wiredMemory"] == "weights"
