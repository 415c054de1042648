"""The table of keys in the documentation says the same as the reader."""

from pathlib import Path

from service.config.keys import FILE_KEYS, SETTING_KEYS
from service.config.reference import render_reference

PROJECT = Path(__file__).parents[2]


def test_the_documented_keys_are_those_of_the_settings() -> None:
    assert render_reference() in (PROJECT / "docs" / "configuration.md").read_text(), (
        "settings have changed: put what 'python -m service.config.reference' prints into docs/configuration.md"
    )


def test_every_key_is_described() -> None:
    rows = [line.split(" | ") for line in render_reference().splitlines() if line.startswith("| `")]
    assert len(rows) == len(FILE_KEYS + SETTING_KEYS)
    assert all(len(description.strip(" |")) > 10 for _, _, description in rows)
