import pytest

from benchmarks import cases
from benchmarks.case import Unavailable
from benchmarks.runner import RunFailed, run_case
from tests.benchmarks import broken_cases, trivial_case


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
        ("hang", RunFailed, "did not end within 2 seconds"),
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
