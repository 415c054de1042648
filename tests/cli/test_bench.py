import json
from pathlib import Path

import pytest

from service.cli.bench import table
from service.cli.measurement import Measurement
from service.cli.report import engine_variables, wired_by_engine
from service.settings import Settings
from service.tallies import Tuning
from tests.cli.terminal import Terminal
from tests.device.machines import MACHINES
from tests.models.test_folder import write_model
from tests.patience import until


def test_bench_measures_the_running_server(terminal: Terminal) -> None:
    with terminal.start("serve"):
        until(terminal.health, "the server")
        done = terminal.run("bench", "--json")
        shown = terminal.run("bench")
    measured = json.loads(done.stdout)
    assert 3_500 < measured["prompt_tokens"] < 4_500
    assert measured["read_rate"] > 0
    assert measured["write_rate_four_at_once"] > 0
    assert (measured["places"], measured["tuning"]) == (2, None)
    assert 0 < measured["hit_seconds"] < measured["cold_seconds"] + 1
    assert [line.split("  ")[0] for line in shown.stdout.splitlines()] == [
        "prompt, cold",
        "the same, warm",
        "answer, alone",
        "four at once",
        "hit",
        "context",
        "memory of MLX",
        "chosen",
    ]


def test_bench_starts_a_server_and_stops_it(terminal: Terminal) -> None:
    done = terminal.run("bench", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt_tokens"] > 0
    assert terminal.health() is None


def test_a_report_has_figures_and_nothing_that_leads_to_its_author(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", apiKey="do-not-show", host="127.0.0.1", maxConcurrency=3)
    file = terminal.cwd / "report.json"
    done = terminal.run("doctor", "--report", str(file))
    assert "report.json is written" in done.stderr, done.stderr
    text = file.read_text()
    report = json.loads(text)
    assert report["measurement"]["prompt_tokens"] > 0
    assert report["measurement"]["places"] == 3
    assert report["figures"]["total"] > report["figures"]["free"]
    assert report["settings"]["backends.vllm-mlx.maxConcurrency"] == 3
    assert report["checks"]["Python"] == "ok"
    for private in ("do-not-show", str(terminal.home), str(terminal.cwd), "127.0.0.1", f":{terminal.port}", "amber"):
        assert private not in text
    assert terminal.health() is None


def test_a_report_measures_the_server_of_another_file(terminal: Terminal) -> None:
    terminal.configure(executor="scripted", maxConcurrency=3)
    other = terminal.cwd / "other.json"
    keys = {"port": terminal.port, "executor": "scripted", "maxConcurrency": 5}
    other.write_text(json.dumps({"backends": {"vllm-mlx": keys}}))
    done = terminal.run("doctor", "--config", "other.json", "--report", "report.json")
    assert "report.json is written" in done.stderr, done.stderr
    report = json.loads((terminal.cwd / "report.json").read_text())
    assert report["settings"]["backends.vllm-mlx.maxConcurrency"] == report["measurement"]["places"] == 5


@pytest.mark.parametrize(("name", "set_here"), [("M4 Max 48 GB", True), ("Linux 64 GB", False)])
def test_a_report_has_what_the_engine_sets(name: str, set_here: bool, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    settings = Settings(home=tmp_path, model=str(folder))
    wired = (folder / "model.safetensors").stat().st_size
    assert wired_by_engine(settings, MACHINES[name]) == (wired if set_here else None)
    assert ("MLX_MAX_MB_PER_BUFFER" in engine_variables({}, MACHINES[name])) == set_here
    own = {"MLX_MAX_MB_PER_BUFFER": "50"}
    assert engine_variables(own | {"HOME": "/home/me"}, MACHINES["M4 Max 48 GB"]) == {
        "MLX_MAX_OPS_PER_BUFFER": "1000",
        **own,
    }


def test_a_report_without_a_model_names_the_reason(terminal: Terminal) -> None:
    terminal.configure(executor="mlx", model="nobody/nothing")
    file = terminal.cwd / "report.json"
    terminal.run("doctor", "--report", str(file))
    report = json.loads(file.read_text())
    assert (report["measurement"], report["missing"]) == (None, "the model is not on this machine yet")


def test_the_choices_of_the_engine_are_shown() -> None:
    tuning = Tuning(chunk_tokens=1024, guesses={"PromptLookup": 4}, file_tokens=5)
    measured = Measurement(
        prompt_tokens=4000,
        cold_seconds=1.0,
        read_rate=4000.0,
        warm_seconds=0.1,
        warm_cached_tokens=3999,
        write_rate_alone=50.0,
        write_rate_four_at_once=90.0,
        hit_seconds=0.001,
        context_length=52_224,
        peak_memory_bytes=2**30,
        places=4,
        tuning=tuning,
    )
    assert table(measured)[-2:] == [
        "memory of MLX   1.0 GiB at most",
        "chosen          4 answers at a time; tokens of a chunk 1,024, lanes 1; guesses 4 (PromptLookup); "
        "on disk 5 tokens or more",
    ]
