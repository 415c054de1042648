from pathlib import Path

import pytest

from tests.fuzz.__main__ import keeping_failures
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def test_every_target_has_a_corpus() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_keeps_every_promise(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for file in inputs:
        data = file.read_bytes()
        # The first half of an input is one that breaks off.
        for given in (data, data[: len(data) // 2], data[:1]):
            TARGETS[name](given)


def test_an_input_that_breaks_a_promise_joins_the_corpus(tmp_path: Path) -> None:
    target = keeping_failures(lambda data: data.decode(), tmp_path)
    target(b"text")
    with pytest.raises(UnicodeDecodeError):
        target(b"\xff")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"\xff"]
