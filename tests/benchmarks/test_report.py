from pathlib import Path

import msgspec
import pytest

from benchmarks import cases
from benchmarks.__main__ import DOCUMENT, store
from benchmarks.case import Case, Environment, Figure, Measure, Result
from benchmarks.report import MarkersMissing, conditions, insert, markdown, number, table_of

FIGURES = (
    Figure(name="hit over floor", unit="x", target="≤ 1.35 x", values=(1.2, 1.3, 1.1), median=1.2, verdict="met"),
    Figure(name="hits", unit="requests/s", target="", values=(4012.0,), median=4012.0, verdict=""),
)
RESULT = Result(
    case="sample",
    title="A sample",
    quick=False,
    environment=Environment(
        date="2025-01-02", system="Linux x86_64", cpu_count=2, python="3.11.7", versions={"msgspec": "0.22.0"}
    ),
    figures=FIGURES,
)
PLACE = "# Page\n\nbefore\n<!-- begin sample -->\nold\n<!-- end sample -->\nafter\n"


async def no_run(run):
    return {}


SAMPLE = Case(title="A sample", measures=(), run=no_run)


def test_the_table_has_target_median_spread_and_verdict():
    assert table_of(FIGURES).splitlines() == [
        "| | target | median of 3 runs | range | |",
        "|---|---|---|---|---|",
        "| hit over floor | ≤ 1.35 x | 1.2 x | 1.1 to 1.3 | met |",
        "| hits |  | 4,012 requests/s |  |  |",
    ]


@pytest.mark.parametrize(
    ("value", "written"), [(0.01234, "0.0123"), (1.256, "1.26"), (12.34, "12.3"), (100.4, "100"), (12345.6, "12,346")]
)
def test_numbers_keep_three_digits(value, written):
    assert number(value) == written


def test_the_text_between_the_markers_is_replaced_and_nothing_else():
    once = insert(PLACE, "sample", r"new \1 text")
    assert once == "# Page\n\nbefore\n<!-- begin sample -->\nnew \\1 text\n<!-- end sample -->\nafter\n"
    assert insert(once, "sample", r"new \1 text") == once


def test_a_document_without_a_place_is_refused():
    with pytest.raises(MarkersMissing, match="<!-- begin other -->"):
        insert(PLACE, "other", "new")


@pytest.mark.parametrize("bound", [{"at_most": 1.5}, {"at_least": 0.5}])
def test_a_bound_is_met_up_to_and_including_itself(bound):
    measure = Measure(name="m", **bound)
    (limit,) = bound.values()
    outside = limit + 0.01 if "at_most" in bound else limit - 0.01
    assert (measure.judge(limit), measure.judge(outside)) == ("met", "missed")


def test_results_sent_elsewhere_leave_the_document_alone(tmp_path: Path):
    document = tmp_path / "page.md"
    document.write_text(PLACE)
    store(RESULT, SAMPLE, tmp_path / "out", document)
    assert msgspec.json.decode((tmp_path / "out" / "sample.json").read_bytes(), type=Result) == RESULT
    assert document.read_text() == PLACE


def test_conditions_are_described_once() -> None:
    described = "Measured 2025-01-02 on Linux x86_64, 2 cores, Python 3.11.7; msgspec 0.22.0."
    other = msgspec.structs.replace(RESULT, case="other")
    assert conditions([RESULT, other]) == described


def test_results_of_other_conditions_are_named() -> None:
    later = msgspec.structs.replace(RESULT.environment, date="2025-02-03")
    text = conditions([RESULT, msgspec.structs.replace(RESULT, case="other", environment=later)])
    assert [paragraph.split(" on ")[0] for paragraph in text.split("\n\n")] == [
        "`other`: Measured 2025-02-03",
        "`sample`: Measured 2025-01-02",
    ]


@pytest.mark.parametrize("name", cases.names())
def test_every_case_writes_its_tables(name):
    case = cases.load(name)
    figures = tuple(
        Figure(name=m.name, unit=m.unit, target=m.target, values=(2.0,), median=2.0, verdict=m.judge(2.0))
        for m in case.measures
    )
    written = markdown(msgspec.structs.replace(RESULT, case=name, figures=figures), case)
    judged = [measure.name for measure in case.measures if measure.target]
    assert all(f"| {name} |" in written for name in judged)


def test_every_case_has_its_place_in_the_document():
    document = DOCUMENT.read_text()
    for name in ("conditions", *cases.names()):
        insert(document, name, "")
