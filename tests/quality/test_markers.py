"""The places whose tests are kept out of `make test-fast` exist."""

from tests.conftest import MARKED_PLACES
from tests.quality.source import ROOT


def test_marked_places_exist() -> None:
    assert not [place for place in MARKED_PLACES if not (ROOT / place).exists()]
