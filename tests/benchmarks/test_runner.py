import subprocess
import tempfile
import time

import msgspec
import pytest

from benchmarks import cases
from benchmarks.case import Unavailable
from benchmarks.runner import RunFailed, run_case
from tests.benchmarks import broken_cases, trivial_case
from tests.patience import PATIENCE_SECONDS


def test_every_run_is_a_fresh_process_and_medians_are_judged():
    done = []
    result = run_case(trivial_case.__name__, trivial_case.CASE, quick=False, after_run=lambda: done.append(1))
    figures = {figure.name: figure for figure in result.figures}

    assert len(done) == trivial_case.CASE.runs
    assert len(set(figures["process"].values)) == trivial_case.CASE.runs
    assert (figures["ratio"].median, figures["ratio"].verdict) == (1.25, "met")
    assert (figures["rate"].median, figures["rate"].verdict) == (0.5, "missed")
    assert figures["rounds"].values == (20.0,) * trivial_case.CASE.runs
    assert figures["scratch"].median == 1.0


def test_a_quick_run_is_one_short_run():
    result = run_case(trivial_case.__name__, trivial_case.CASE, quick=True, after_run=lambda: None)
    assert result.quick
    assert {figure.name: figure.values for figure in result.figures}["rounds"] == (2.0,)


@pytest.mark.parametrize(
    ("way", "error", "message"),
    [
        ("fail", RunFailed, "the peer answered something else"),
        ("miss", Unavailable, "apt-get install redis-server"),
    ],
)
def test_a_run_without_figures_says_why(monkeypatch, way, error, message):
    monkeypatch.setenv("BROKEN_CASE", way)
    with pytest.raises(error, match=message):
        run_case(broken_cases.__name__, broken_cases.CASE, quick=True, after_run=lambda: None)


@pytest.mark.parametrize("name", cases.names())
def test_every_case_declares_distinct_measures(name):
    case = cases.load(name)
    names = [measure.name for measure in case.measures]
    assert names
    assert len(names) == len(set(names))
    assert case.title


def test_what_hung_is_gone_with_its_servers_and_its_folder(monkeypatch, tmp_path):
    scratch, child_file = tmp_path / "scratch", tmp_path / "child"
    scratch.mkdir()
    monkeypatch.setenv("BROKEN_CASE", "hang")
    monkeypatch.setenv("BROKEN_CASE_CHILD", str(child_file))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    case = msgspec.structs.replace(broken_cases.CASE, timeout_seconds=10.0)
    with pytest.raises(RunFailed, match="did not end within 10 seconds"):
        run_case(broken_cases.__name__, case, quick=True, after_run=lambda: None)
    assert list(scratch.iterdir()) == []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_alive(int(child_file.read_text())):
        assert time.monotonic() < deadline, "the run has ended, and the process that it started has not"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may still wait for somebody to ask how (state Z)."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
