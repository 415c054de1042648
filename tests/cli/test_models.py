"""`anyclaude models`: what is on the machine, and what to fetch."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.models.recommended import RECOMMENDED, nearest_ids
from tests.cli.terminal import Terminal
from tests.models.test_folder import write_model
from tests.patience import until


@pytest.fixture
def user(terminal: Terminal) -> Terminal:
    terminal.environment["HF_HOME"] = str(terminal.home / "hf")
    return terminal


def names(user: Terminal) -> dict[str, str]:
    return {row["name"]: row["source"] for row in listed(user)["installed"]}


def listed(user: Terminal) -> Any:
    return json.loads(user.run("models", "list", "--json").stdout)


def snapshot(user: Terminal, name: str) -> Path:
    return user.home / "hf" / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / "abc"


def test_the_models_of_all_programs_are_listed(user: Terminal) -> None:
    ours, lm_studio = user.home / ".anyclaude" / "models", user.home / ".lmstudio" / "models" / "org" / "studio"
    for folder in (ours / "SmolLM2-135M-Instruct", ours / "org" / "mine", lm_studio, snapshot(user, "org/cached")):
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_model(folder)
    (ours / "org" / ".mine.partial").mkdir()
    (ours / "org" / "broken").mkdir()
    (ours / "org" / "broken" / "config.json").write_text("{}")
    found = {"demo": "anyclaude", "org/mine": "anyclaude", "org/cached": "Hugging Face", str(lm_studio): "LM Studio"}
    assert names(user) == found
    user.configure(model="org/mine", models={"small": {"model": "org/cached"}, "far": {"model": "org/far"}})
    shown = user.run("models", "list").stdout
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("* ")][:-1] == ["org/mine", "org/cached"]
    assert re.search(
        r"^Configured, and not served now:\n  org/mine +org/mine\n  small +org/cached\n  far ", shown, re.M
    )
    assert listed(user)["configured"] == {"org/mine": "org/mine", "small": "org/cached", "far": "org/far"}
    assert listed(user)["served"] == {}


def test_no_model_at_all(user: Terminal) -> None:
    assert "'anyclaude models recommend' lists some" in user.run("models", "list").stdout


def test_a_model_of_ours_is_removed_and_no_other(user: Terminal) -> None:
    mine = user.home / ".anyclaude" / "models" / "org" / "mine"
    for folder in (mine, snapshot(user, "org/cached")):
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_model(folder)
    assert user.run("models", "rm", "--yes", "org/mine").stdout == "Removed org/mine.\n"
    assert not mine.exists()
    other = user.run("models", "rm", "--yes", "org/cached")
    assert (other.returncode, "belongs to Hugging Face" in other.stderr) == (1, True)
    assert user.run("models", "rm", "--yes", "../..").returncode == 66
    assert names(user) == {"org/cached": "Hugging Face"}


def test_a_model_is_pulled_once(user: Terminal) -> None:
    folder = user.home / ".anyclaude" / "models" / "org" / "mine"
    folder.parent.mkdir(parents=True)
    write_model(folder)
    done = user.run("models", "pull", "org/mine")
    assert done.stdout == f"org/mine is in {folder}. To serve it: anyclaude serve org/mine\n"
    missing = user.run("models", "pull", "qwen3:0.6b")
    assert (missing.returncode, "mlx-community/Qwen3-0.6B-4bit" in missing.stderr) == (66, True)


def test_recommendations_name_the_way_to_fetch_one(user: Terminal) -> None:
    shown = user.run("models", "recommend").stdout
    assert all(model.id in shown for model in RECOMMENDED)
    assert "anyclaude models pull" in shown


def test_every_recommended_model_is_found_by_the_start_of_its_name() -> None:
    for model in RECOMMENDED:
        assert nearest_ids(model.id.rpartition("/")[2].removesuffix("-4bit"))[0] == model.id


def test_a_server_that_has_no_engine_process_says_so(user: Terminal) -> None:
    assert "No server answers at" in user.run("models", "load", "small").stderr
    with user.start("serve"):
        until(user.health, "the server")
        refused = user.run("models", "unload", "scripted")
        assert (refused.returncode, "always loaded" in refused.stderr) == (1, True)
        assert listed(user)["served"] == {"scripted": "loaded"}
        assert f"Served at {user.url}:\n  scripted  loaded\n" in user.run("models", "list").stdout
        assert "is not served here" in user.run("models", "load", "no such/model").stderr
