"""The benchmarks of endurance, short: what they count must be right in every run, however fast the machine is."""

import sys
from pathlib import Path

import pytest

from benchmarks.case import Run
from benchmarks.cases import aborts, crowd, recovery, soak
from benchmarks.model_folders import tiny_model

pytestmark = pytest.mark.model


@pytest.mark.skipif(sys.platform != "linux", reason="a process's threads and files are read from /proc")
async def test_mixed_requests_are_all_answered_right(tmp_path: Path) -> None:
    values = await soak.run(Run(scratch=tmp_path, quick=True))
    assert values["requests"] == 300
    assert values["answers that are wrong"] == values["requests without an answer"] == 0
    assert values["threads, growth"] <= 0
    assert values["open files, growth"] <= soak.CLIENTS  # as many are open as clients are at work just then


async def test_a_crowd_is_served_or_refused(tmp_path: Path) -> None:
    values = await crowd.run(Run(scratch=tmp_path, quick=True))
    assert values["answers that are wrong"] == values["requests without an answer"] == 0
    assert values["requests served"] >= crowd.MAX_QUEUE
    assert values["requests served"] + values["requests refused"] == 200


async def test_clients_that_leave_give_everything_back(tmp_path: Path) -> None:
    values = await aborts.run(Run(scratch=tmp_path, quick=True))
    assert values["memory of the engine, after less before"] <= 1


async def test_what_follows_a_fault_is_right(tmp_path: Path) -> None:
    run, tally = Run(scratch=tmp_path, quick=True), recovery.Tally()
    await recovery.measure(run, await tiny_model(run), tally)
    assert (tally.wrong, tally.silent) == (0, 0)
